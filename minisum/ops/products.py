"""Attention without softmax: a matrix of sums Σ k.T @ v, written by keys and read by queries.

Without the softmax the product q @ k.T @ v can be taken from the right: first S = k.T @ v, of K×V
numbers, then q @ S. Tokens interact only through S, so time is linear in n, and S is the whole
state of a text.
"""

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.running import sum_to


@has_fast_forms
def full_product(q, k, v, state=None):
    """y = q @ S, S = state + k.T @ v, the same S for every token.

    q, k (B, H, n, K), v (B, H, n, V), state (B, H, K, V) or None for 0 -> y (B, H, n, V) and S.

    y is linear in q and S, S in k and v: dS += q.T @ dy; dq = dy @ S.T, dk = v @ dS.T,
    dv = k @ dS, dstate = dS.

    Saved: q, k, v, S.
    """
    has_state = state is not None
    S = transposed(k) @ v + state if has_state else transposed(k) @ v  # (B, H, K, V)

    def back(gradients):
        dy, dlast = gradients
        dS = transposed(q) @ dy if dlast is None else transposed(q) @ dy + dlast
        return dy @ transposed(S), v @ transposed(dS), k @ dS, dS if has_state else None

    return (q @ S, S), back


@has_fast_forms
def causal_product(q, k, v, log_decay=None, state=None):
    """y_t = q_t @ S_t, S_t = a_t.T ⊙ S_{t-1} + k_t.T @ v_t with a = exp(log_decay) <= 1.

    q, k (B, H, n, K), v (B, H, n, V), log_decay <= 0 per head (.., n, 1) or per key channel
    (.., n, K) or None for no decay, state S_0 (B, H, K, V) or None for 0 -> y (B, H, n, V) and S_n.
    Leading axes of q, k and log_decay may be 1. Time O(n K V). Yang et al. 2024, section 4.

    Let dS be the gradient of the state, carried from the last token to the first. At token t it
    gains q_t.T @ dy_t; then dq_t = dy_t @ S_t.T, dk_t = v_t @ dS.T, dv_t = k_t @ dS;
    dlog_decay_t sums dS ⊙ (a_t.T ⊙ S_{t-1}) over V (and over K where a head has one decay); and
    S_{t-1} receives a_t.T ⊙ dS, which before the first token is dstate.

    Saved: q, k, v, log_decay, the state after every token.
    """
    xp, n, shapes = array_module(q), q.shape[2], (q.shape, k.shape)
    q, k = (for_each_head(x, v) for x in (q, k))
    S = xp.zeros((*q.shape[:2], k.shape[-1], v.shape[-1]), q.dtype) if state is None else state
    states, y = [S], xp.empty_like(v)
    for t in range(n):
        q_t, k_t, v_t, decay_t = (token(x, t) for x in (q, k, v, log_decay))  # rows (B, H, 1, ..)
        S = forget(decay_t, S) + transposed(k_t) @ v_t
        states.append(S)
        token(y, t)[...] = q_t @ S

    def back(gradients):
        dy, dS = gradients
        dS = xp.zeros_like(S) if dS is None else dS
        dq, dk, dv, da = (xp.empty_like(x) for x in (q, k, v, k))
        for t in reversed(range(n)):
            q_t, k_t, v_t, decay_t, dy_t = (token(x, t) for x in (q, k, v, log_decay, dy))
            dS = dS + transposed(q_t) @ dy_t
            token(dq, t)[...] = dy_t @ transposed(states[t + 1])
            token(dk, t)[...] = v_t @ transposed(dS)
            token(dv, t)[...] = k_t @ dS
            if log_decay is not None:
                da[:, :, t] = (dS * forget(decay_t, states[t])).sum(axis=-1)
            dS = forget(decay_t, dS)
        dlog_decay = None if log_decay is None else sum_to(da, log_decay.shape)
        dq, dk = (sum_to(*pair) for pair in zip((dq, dk), shapes, strict=True))
        return dq, dk, dv, dlog_decay, None if state is None else dS

    return (y, S), back


def for_each_head(x, v):
    """x (B or 1, H or 1, n, w) with the leading axes of v (B, H, ..)."""
    return array_module(x).broadcast_to(x, (*v.shape[:2], *x.shape[2:]))


def token(x, t):
    """Token t of x (B, H, n, w) as a row (B, H, 1, w); None of None."""
    return None if x is None else x[:, :, t : t + 1]


def forget(log_decay, S):
    """a.T ⊙ S with a = exp(log_decay).   log_decay (.., 1, K or 1) or None, S (B, H, K, V)"""
    return S if log_decay is None else transposed(array_module(S).exp(log_decay)) * S


def transposed(x):
    return x.swapaxes(-1, -2)
