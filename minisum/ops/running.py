"""Running sums, with or without decay, one number per channel: h_t = a_t h_{t-1} + u_t.

The gradient of such a recurrence is the same recurrence, run from the last token to the first.
"""

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.pooling import masked


@has_fast_forms
def cumsum(x, axis, reverse=False):
    """Running sums along `axis` >= 0, from its end with `reverse`."""
    flip = array_module(x).flip
    return flip(flip(x, axis).cumsum(axis), axis) if reverse else x.cumsum(axis)


def reverse_cumsum(x, axis):
    """Σ over this entry and all later ones: the adjoint of the running sum."""
    return cumsum(x, axis, reverse=True)


def cumsum_tokens(x, mask=None):
    """y[b, t] = Σ x[b, s] over real tokens s <= t.

    x (B, n, d), mask (B, n) bool or None -> y like x.
    The causal form of `sum_tokens`: the running sum takes the place of attention's causal mask.
    Token s is in every y from s on, so its gradient is the running sum from the end:
    dx[b, s] = Σ_{t >= s} dy[b, t] at real tokens, 0 at padding.

    Saved: mask.
    """

    def back(dy):
        return masked(reverse_cumsum(dy, axis=1), mask), None

    return cumsum(masked(x, mask), axis=1), back


def running_sum(u, state=None):
    """h_t = h_{t-1} + u_t.   u (B, n, d), state h_0 (B, d) or None for 0 -> h (B, n, d) and h_n.

    Token s is in every h from s on: du_s = Σ_{t>=s} dh_t; the state is in all: dstate = Σ_t dh_t.
    The gradient of h_n, if any, is added to both. Time O(n d).

    Saved: nothing.
    """
    has_state = state is not None
    h = cumsum(u, 1) + state[:, None] if has_state else cumsum(u, 1)

    def back(gradients):
        dh, dlast = gradients
        du = reverse_cumsum(dh, 1)
        if dlast is not None:
            du = du + dlast[:, None]
        return du, du[:, 0] if has_state else None

    return (h, h[:, -1]), back


@has_fast_forms
def decayed_sum(u, log_decay, state=None):
    """h_t = a_t ⊙ h_{t-1} + u_t with a = exp(log_decay) <= 1.

    u (B, n, d), log_decay <= 0 of that shape (axes may be 1), state h_0 (B, d) or None for 0
    -> h (B, n, d) and h_n. Time O(n d). Qin et al. 2023, equation 1 (HGRN), is this.

    The gradient runs the same recurrence from the end: G_t = dh_t + a_{t+1} ⊙ G_{t+1} is du_t;
    dlog_decay_t = a_t ⊙ G_t ⊙ h_{t-1}; dstate = a_1 ⊙ G_1.

    Saved: a, h, state, and the shape of log_decay.
    """
    xp, n, shape = array_module(u), u.shape[1], log_decay.shape
    a = xp.broadcast_to(xp.exp(log_decay), u.shape)
    start = xp.zeros_like(u[:, 0]) if state is None else state
    h, last = xp.empty_like(u), start
    for t in range(n):
        h[:, t] = last = a[:, t] * last + u[:, t]

    def back(gradients):
        dh, G = gradients
        G = xp.zeros_like(start) if G is None else G
        du, da = xp.empty_like(h), xp.empty_like(h)
        for t in reversed(range(n)):
            du[:, t] = G = dh[:, t] + G
            G = a[:, t] * G
            da[:, t] = G * (h[:, t - 1] if t else start)
        return du, sum_to(da, shape), None if state is None else G

    return (h, h[:, -1]), back


def sum_to(x, shape):
    """`x` summed over the axes along which an array of `shape` was broadcast to it."""
    pairs = zip(x.shape, shape, strict=True)
    axes = tuple(i for i, (have, want) in enumerate(pairs) if want < have)
    return x.sum(axis=axes, keepdims=True) if axes else x
