"""Running sums that forget, one number a channel: h_t = a_t h_{t-1} + u_t.

The recurrence is cut into about √n chunks of √n tokens. All chunks walk their tokens side by side,
each from zero; then the chunks' ends are chained; then every token gets what came before its
chunk, faded by the decays since. Two loops of √n steps instead of one of n, and n multiplications
all the same.
"""

import math

from minisum.backend import add_into, array_module
from minisum.ops.chunks import cumsum, reverse_cumsum, sum_to


def running_sum(u, state=None):
    """h_t = h_{t-1} + u_t.   u (B, n, d), state h_0 (B, d) or None for 0 -> h (B, n, d) and h_n.

    Token s is in every h from s on: du_s = Σ_{t>=s} dh_t, and dstate is the sum of them all.
    Time O(n d).

    Saved: nothing.
    """
    h = cumsum(u, 1)
    has_state = state is not None
    if has_state:
        h = h + state[:, None]

    def back(gradients):
        dh, dlast = gradients
        du = reverse_cumsum(dh, 1)
        if dlast is not None:
            du = du + dlast[:, None]
        return du, du[:, 0] if has_state else None

    return (h, h[:, -1]), back


def decayed_sum(u, log_decay, state=None):
    """h_t = a_t ⊙ h_{t-1} + u_t with a = exp(log_decay) <= 1.

    u (B, n, d), log_decay <= 0 of that shape (axes may be 1), state h_0 (B, d) or None for 0
    -> h (B, n, d) and h_n. Time O(n d). Qin et al. 2023, equation 1 (HGRN), is this.

    The gradient runs the same recurrence from the end: G_t = dh_t + a_{t+1} ⊙ G_{t+1} is du_t;
    dlog_decay_t = a_t ⊙ G_t ⊙ h_{t-1}; dstate = a_1 ⊙ G_1.

    Saved: a, h, state, and the shape of log_decay.
    """
    xp = array_module(u)
    shape = log_decay.shape
    a = xp.broadcast_to(xp.exp(log_decay), u.shape)
    start = xp.zeros_like(u[:, 0]) if state is None else state
    h = _scan(a, u, start)

    def back(gradients):
        dh, dlast = gradients
        later = xp.concatenate([a[:, 1:], xp.ones_like(a[:, :1])], axis=1)
        dlast = xp.zeros_like(start) if dlast is None else dlast
        G = _scan(later[:, ::-1], dh[:, ::-1], dlast)[:, ::-1]
        before = xp.concatenate([start[:, None], h[:, :-1]], axis=1)
        dlog_decay = sum_to(a * G * before, shape)
        if state is None:
            return G, dlog_decay, None
        return G, dlog_decay, a[:, 0] * G[:, 0]

    return (h, h[:, -1]), back


def softmax_pool(k, v, mask=None):
    """y = Σ_t p_t ⊙ v_t, p the softmax of k over the real tokens, channel by channel.

    k, v (B, n, d), mask (B, n) bool or None -> y (B, d); 0 for a text without tokens.

    dv = p ⊙ dy; through the softmax, dk = p ⊙ (v - y) ⊙ dy.

    Saved: v, p, y.
    """
    xp = array_module(k)
    if mask is not None:
        k = xp.where(mask[:, :, None], k, _lowest(xp, k))
        v = xp.where(mask[:, :, None], v, 0)
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


def running_softmax_pool(k, v, mask=None, state=None):
    """y_t = Σ_{s<=t} e^{k_s} v_s / Σ_{s<=t} e^{k_s}, channel by channel, over real tokens.

    k, v (B, n, d), mask (B, n) bool or None, state None or (M, N, Z) each (B, d) -> y (B, n, d)
    and the state after the last token: the largest k so far, numerator and denominator divided by
    e^M. While no token is real, y is 0. Zhai et al. 2021 (AFT-simple, equation 3) with the running
    maximum of Milakov and Gimelshein 2018. Time O(n d).

    In units of the running maximum M both sums are decayed sums: N_t = e^{M_{t-1} - M_t} N_{t-1} +
    e^{k_t - M_t} v_t. M cancels in y = N / Z and so counts as a constant: dN = dy / Z and
    dZ = -dy ⊙ y / Z go back through the decayed sums to P and R, and then
    dv = e^{k - M} P, dk = e^{k - M} (v P + R). The state is for generation: it has no gradient.

    Saved: v, y, Z, e^{k - M}, and what the decayed sums save.
    """
    xp = array_module(k)
    if state is None:
        zero = xp.zeros_like(k[:, 0])
        state = (xp.full_like(zero, _lowest(xp, k)), zero, zero)
    if mask is not None:
        k = xp.where(mask[:, :, None], k, _lowest(xp, k))
        v = xp.where(mask[:, :, None], v, 0)
    M = _running_maximum(k, state[0])
    before = xp.concatenate([state[0][:, None], M[:, :-1]], axis=1)
    weight = xp.exp(k - M)
    if mask is not None:
        weight = xp.where(mask[:, :, None], weight, 0)
    # Numerator and denominator side by side, so that one pass does both.
    two = xp.concatenate([weight * v, weight], axis=-1)
    start = xp.concatenate(state[1:], axis=-1)
    fade = before - M
    (sums, last), back_sums = decayed_sum(two, xp.concatenate([fade, fade], axis=-1), start)
    d = k.shape[-1]
    Z = xp.where(sums[..., d:] == 0, 1, sums[..., d:])
    y = sums[..., :d] / Z

    def back(gradients):
        dy, _ = gradients
        dN = dy / Z
        dsums, *_ = back_sums((xp.concatenate([dN, -dN * y], axis=-1), None))
        P, R = dsums[..., :d], dsums[..., d:]
        return weight * (v * P + R), weight * P, None, None

    return (y, (M[:, -1], last[:, :d], last[:, d:])), back


def _lowest(xp, x):
    """Below every key, and finite: the difference of two infinities would be NaN."""
    return float(xp.finfo(x.dtype).min) / 2


def _chunked(x):
    """(B, n, d) -> (B, N, C, d) with C about √n, zeros after the last token.

    C is odd: chunks a power of two apart would share few places of the cache among them all.
    """
    B, n, d = x.shape
    C = (math.isqrt(n - 1) + 1) | 1
    N = -(-n // C)
    if n != N * C:
        padded = array_module(x).zeros((B, N * C, d), x.dtype)
        padded[:, :n] = x
        x = padded
    return x.reshape(B, N, C, d)


def _scan(a, u, start):
    """h_t = a_t h_{t-1} + u_t.   a, u (B, n, d), start (B, d) -> h (B, n, d)"""
    xp, n = array_module(u), u.shape[1]
    a, h = _chunked(a), _chunked(u).copy()
    kept = a.copy()
    for i in range(1, h.shape[2]):
        add_into(h[:, :, i], a[:, :, i] * h[:, :, i - 1])
        xp.multiply(kept[:, :, i], kept[:, :, i - 1], out=kept[:, :, i])
    for c in range(h.shape[1]):
        add_into(h[:, c], kept[:, c] * start[:, None])
        start = h[:, c, -1]
    return h.reshape(h.shape[0], -1, h.shape[-1])[:, :n]


def _running_maximum(k, start):
    """max of start and k up to each token.   k (B, n, d), start (B, d) -> (B, n, d)"""
    xp = array_module(k)
    n = k.shape[1]
    top = _chunked(k).copy()
    for i in range(1, top.shape[2]):
        top[:, :, i] = xp.maximum(top[:, :, i], top[:, :, i - 1])
    for c in range(top.shape[1]):
        top[:, c] = xp.maximum(top[:, c], start[:, None])
        start = top[:, c, -1]
    return top.reshape(top.shape[0], -1, top.shape[-1])[:, :n]
