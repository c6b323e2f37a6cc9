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


def softmax_pool(k, v, mask=None):
    """y = Σ_t p_t ⊙ v_t, p the softmax of k over the real tokens, channel by channel.

    k, v (B, n, d), mask (B, n) bool or None -> y (B, d); 0 for a text without tokens.

    dv = p ⊙ dy; through the softmax, dk = p ⊙ (v - y) ⊙ dy.

    Saved: v, p, y.
    """
    xp = array_module(k)
    k, v = only_real_keys(k, v, mask)
    weights = xp.exp(k - k.max(axis=1, keepdims=True))
    if mask is not None:
        weights = xp.where(mask[:, :, None], weights, 0)
    total = weights.sum(axis=1, keepdims=True)
    p = weights / xp.where(total == 0, 1, total)
    y = (p * v).sum(axis=1)

    def back(dy):
        dv = p * dy[:, None]
        return dv * (v - y[:, None]), dv, None

    return y, back


@has_fast_forms
def running_softmax_pool(k, v, mask=None, state=None):
    """y_t = Σ_{s<=t} e^{k_s} v_s / Σ_{s<=t} e^{k_s}, channel by channel, over real tokens.

    k, v (B, n, d), mask (B, n) bool or None, state None or (M, N, Z) each (B, d) -> y (B, n, d)
    and the state after the last token: the largest k so far, numerator and denominator divided by
    e^M. While no token is real, y is 0. Zhai et al. 2021 (AFT-simple, equation 3) with the running
    maximum of Milakov and Gimelshein 2018. Time O(n d).

    Both sums are kept in units of e^M; as M grows they are multiplied by a_t = e^{M_{t-1} - M_t}:
    N_t = a_t N_{t-1} + w_t v_t and Z_t = a_t Z_{t-1} + w_t with w_t = e^{k_t - M_t}. M cancels in
    y = N / Z and so counts as a constant. Backward, with P and R the gradients of N and Z:
    P_t = dy_t / Z_t + a_{t+1} P_{t+1} and R_t = -dy_t ⊙ y_t / Z_t + a_{t+1} R_{t+1}; then
    dv = w P and dk = w (v P + R). The state is for generation: it has no gradient.

    Saved: v, y, Z, w, a.
    """
    xp, n = array_module(k), k.shape[1]
    M, N, Z = first_state(k) if state is None else state
    k, v = only_real_keys(k, v, mask)
    y, w, a, Zs = (xp.empty_like(k) for _ in range(4))
    for t in range(n):
        before, M = M, xp.maximum(M, k[:, t])
        a[:, t], w[:, t] = xp.exp(before - M), xp.exp(k[:, t] - M)
        if mask is not None:
            w[:, t] = xp.where(mask[:, t, None], w[:, t], 0)
        N = a[:, t] * N + w[:, t] * v[:, t]
        Z = a[:, t] * Z + w[:, t]
        Zs[:, t] = xp.where(Z == 0, 1, Z)
        y[:, t] = N / Zs[:, t]

    def back(gradients):
        dy, _ = gradients
        dk, dv = xp.empty_like(y), xp.empty_like(y)
        P = R = 0
        for t in reversed(range(n)):
            dN = dy[:, t] / Zs[:, t]
            P, R = P + dN, R - dN * y[:, t]
            dv[:, t] = w[:, t] * P
            dk[:, t] = w[:, t] * (v[:, t] * P + R)
            P, R = a[:, t] * P, a[:, t] * R
        return dk, dv, None, None

    return (y, (M, N, Z)), back


def first_state(k):
    """(M, N, Z) before the first token."""
    zero = array_module(k).zeros_like(k[:, 0])
    return zero + _lowest(k), zero, zero


def only_real_keys(k, v, mask):
    """k and v with the lowest key and zero values at padding."""
    if mask is None:
        return k, v
    where, real = array_module(k).where, mask[:, :, None]
    return where(real, k, _lowest(k)), where(real, v, 0)


def _lowest(k):
    """A finite number below every key: the difference of two infinities would be NaN."""
    return float(array_module(k).finfo(k.dtype).min) / 2
