"""A memory that keeps the recent past in small blocks and the distant past in ever larger ones.

At token t the past is divided as in a Fenwick tree: level 0 is the token itself, and level l is the
block of 2^(l-1) tokens of t's binary digit l - 1, if that is 1. Each level has its own state.
"""

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.products import token, transposed


@has_fast_forms
def log_linear_product(q, k, v, log_decay, weights, state=None):
    """y_t = Σ_l λ_tl q_t @ S_t^(l), S_t^(l) = Σ_s (a_{s+1} ... a_t) k_s.T @ v_s, s in level l.

    q, k (B, H, n, K), v (B, H, n, V), log_decay = log a <= 0 (B, H, n, 1), weights λ (B, H, n, L);
    L levels suffice for 2^(L-1) tokens. state None or (the states (B, H, L, K, V), the number of
    tokens read) -> y (B, H, n, V) and the state after the last token. Time O(n L K V), in chunks
    O(n (C + L) (K + V) + n K V). Guo et al. 2025, "Log-linear attention", section 3.

    Before token t > 0 with m trailing zeros in binary, levels 0 to m merge into level m + 1; then
    all are multiplied by a_t, and level 0 becomes k_t.T @ v_t. Backward, with dS of each level
    carried from the end: dS^(l) += λ_tl q_t.T @ dy_t, dq_t = Σ_l λ_tl dy_t @ S^(l).T and
    dweights_tl = (q_t @ S^(l))·dy_t; dk_t = v_t @ dS^(0).T, dv_t = k_t @ dS^(0), then dS^(0) = 0,
    as it was overwritten; dlog_decay_t = Σ dS ⊙ S; dS is multiplied by a_t; and each merged level
    gets the gradient of level m + 1. The state is for generation: it has no gradient.

    Saved: q, k, v, log_decay, weights, the states after every token.
    """
    xp, (B, H, n, K) = array_module(q), q.shape
    L = weights.shape[-1]
    S, start = state or (xp.zeros((B, H, L, K, v.shape[-1]), q.dtype), 0)
    states, y = [], xp.empty_like(v)
    for t in range(n):
        q_t, k_t, v_t, decay_t, weights_t = (token(x, t) for x in (q, k, v, log_decay, weights))
        S = S.copy()
        merged = zeros_at_the_end(start + t) + 1 if start + t else 0
        S[:, :, merged] = S[:, :, : merged + 1].sum(axis=2)
        S = xp.exp(decay_t)[..., None] * S
        S[:, :, :merged] = 0
        S[:, :, 0] = transposed(k_t) @ v_t
        states.append(S)
        token(y, t)[...] = (transposed(weights_t)[..., None] * (q_t[:, :, None] @ S)).sum(axis=2)

    def back(gradients):
        dy, _ = gradients
        dS = xp.zeros_like(S)
        dq, dk, dv, da, dweights = (xp.empty_like(x) for x in (q, k, v, log_decay, weights))
        for t in reversed(range(n)):
            q_t, k_t, v_t, weights_t, dy_t = (token(x, t) for x in (q, k, v, weights, dy))
            weight = transposed(weights_t)[..., None]  # (B, H, L, 1, 1)
            dS = dS + weight * (transposed(q_t) @ dy_t)[:, :, None]
            token(dq, t)[...] = (weight * (dy_t[:, :, None] @ transposed(states[t]))).sum(axis=2)
            dweights[:, :, t] = (q_t[:, :, None] @ states[t] * dy_t[:, :, None]).sum(axis=(-2, -1))
            token(dk, t)[...] = v_t @ transposed(dS[:, :, 0])
            token(dv, t)[...] = k_t @ dS[:, :, 0]
            dS[:, :, 0] = 0
            da[:, :, t, 0] = (dS * states[t]).sum(axis=(-3, -2, -1))
            dS = xp.exp(token(log_decay, t))[..., None] * dS
            merged = zeros_at_the_end(start + t) + 1 if start + t else 0
            dS[:, :, :merged] = dS[:, :, merged : merged + 1]
        return dq, dk, dv, da, dweights, None

    return (y, (S, start + n)), back


def zeros_at_the_end(t):
    """How many zeros end the binary form of t > 0."""
    return (t & -t).bit_length() - 1
