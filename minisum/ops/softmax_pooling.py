"""Averages over tokens whose weights are a softmax, taken in each channel for itself.

Attention without queries: every token of a text reads the same average. The causal form, of the
tokens so far, carries three numbers per channel from token to token.
"""

from minisum.backend import array_module
from minisum.fast import has_fast_forms


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
