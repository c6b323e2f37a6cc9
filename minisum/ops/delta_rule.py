"""The delta rule: a memory that is corrected, not only added to."""

from minisum.backend import array_module
from minisum.ops.chunks import (
    back_chunk_decays,
    chunk_decays,
    decay_matrix,
    in_pieces,
    join_chunks,
    lower,
    split_chunks,
    transposed,
)

CHUNK = 32


def delta_rule(q, k, v, beta, log_decay=None, state=None, chunk=None):
    """S̃_t = a_t S_{t-1}; u_t = β_t (v_t - S̃_tᵀ k_t); S_t = S̃_t + k_t u_tᵀ; y_t = S_tᵀ q_t.

    The memory S is asked what it holds under k_t, and told a share β_t of what was wrong.
    q, k (B, H, n, K), v (B, H, n, V), beta (B, H, n, 1) in [0, 1], log_decay = log a <= 0 like
    beta or None for a = 1, state S_0 (B, H, K, V) or None for 0 -> y (B, H, n, V) and S_n. Keys
    must not be longer than 1, or the memory may grow without bound. Time O(n (C (K + V) + K V)).
    Yang et al. 2024, "Parallelizing linear transformers with the delta rule", section 3; with
    decay, Yang, Kautz and Hatamizadeh 2025, "Gated delta networks", section 3.

    In a chunk let b be the running sum of log_decay, Γ_ij = exp(b_i - b_j) for j <= i, S_c the
    state at its start. Each u depends on those before it: a triangular system L u = r, with
    L = 1 + β (k kᵀ ⊙ Γ) strictly below the diagonal and r = β (v - e^b k S_c). Solved for both
    parts of r before S_c is known, u = X - Z S_c. Then, with A = q kᵀ ⊙ Γ,
    y = e^b q S_c + A u and S_{c+1} = e^{b_C} S_c + (e^{b_C - b} k)ᵀ u.

    Backward: G = dS_{c+1} comes from the next chunk; du = Aᵀ dy + e^{b_C - b} k G and
    dS_c = e^{b_C} G + (e^b q)ᵀ dy - Zᵀ du. The adjoint of a solve is a solve with the transpose:
    dr = L⁻ᵀ d[X Z] with d[X Z] = [du, -du S_cᵀ], and dL = -dr [X Z]ᵀ. All else are products, each
    linear in its factors. A key plays two parts: it asks (in the rows of L and in r), and it
    writes (in the columns of L and A and in S_{c+1}). As b occurs only as e^b beside q and the
    asking k, as e^{-b} beside the writing k, and in S_{c+1}: db = q ⊙ dq + k ⊙ dk_asks -
    k ⊙ dk_writes, plus G ⊙ S_{c+1} at the chunk's end; dlog_decay sums db over later tokens.

    Saved: q, k, v, beta, log_decay, X, Z, u, L, A, the decays, one state a chunk.
    """

    def recurrence(q, k, v, beta, log_decay, state):
        return _delta_rule(q, k, v, beta, log_decay, state, chunk)

    return in_pieces(recurrence, (q, k, v, beta, log_decay), state)


def _delta_rule(q, k, v, beta, log_decay, state, chunk):
    xp = array_module(q)
    n = q.shape[2]
    C = min(chunk or CHUNK, n)
    Q, K, V, rate = (split_chunks(a, C) for a in (q, k, v, beta))
    b, from_start, to_end, keep = chunk_decays(log_decay, C)
    gamma = lower(xp, C).astype(q.dtype) if log_decay is None else decay_matrix(b)
    gamma_below = xp.where(lower(xp, C, diagonal=False), gamma, 0)

    overlap = K @ transposed(K) * gamma_below
    L = xp.eye(C, dtype=q.dtype) + rate * overlap
    asks, writes, reads = K * from_start, K * to_end, Q * from_start
    XZ = xp.linalg.solve(L, rate * xp.concatenate([V, asks], axis=-1))
    X, Z = XZ[..., : V.shape[-1]], XZ[..., V.shape[-1] :]
    A = Q @ transposed(K) * gamma

    S = xp.zeros((*q.shape[:2], K.shape[-1], V.shape[-1]), q.dtype) if state is None else state
    starts = xp.empty((*K.shape[:3], *S.shape[2:]), q.dtype)
    U = xp.empty_like(V)
    for c in range(K.shape[2]):
        starts[:, :, c] = S
        U[:, :, c] = X[:, :, c] - Z[:, :, c] @ S
        S = (S if keep is None else keep[:, :, c] * S) + transposed(writes[:, :, c]) @ U[:, :, c]
    last = S
    y = reads @ starts + A @ U

    def back(gradients):
        dy, dlast = gradients
        dY = split_chunks(dy, C)
        dU, dstarts = transposed(A) @ dY, transposed(reads) @ dY
        G = xp.empty_like(starts)
        dS = xp.zeros_like(last) if dlast is None else dlast
        for c in reversed(range(K.shape[2])):
            G[:, :, c] = dS
            dU[:, :, c] += writes[:, :, c] @ dS
            dS = (dS if keep is None else keep[:, :, c] * dS) + dstarts[:, :, c]
            dS = dS - transposed(Z[:, :, c]) @ dU[:, :, c]

        dXZ = xp.concatenate([dU, -dU @ transposed(starts)], axis=-1)
        dr = xp.linalg.solve(transposed(L), dXZ)
        dL = -dr @ transposed(XZ)
        dr_value, dr_key = dr[..., : V.shape[-1]], dr[..., V.shape[-1] :]
        doverlap = rate * dL * gamma_below
        dA = dY @ transposed(U) * gamma

        dQ = (dY @ transposed(starts)) * from_start + dA @ K
        dK_asks = rate * dr_key * from_start + doverlap @ K
        dK_writes = (U @ transposed(G)) * to_end + transposed(dA) @ Q + transposed(doverlap) @ K
        drate = (dr_value * V).sum(-1, keepdims=True) + (dr_key * asks).sum(-1, keepdims=True)
        drate += (dL * overlap).sum(-1, keepdims=True)

        dlog_decay = None
        if log_decay is not None:
            db = Q * dQ + K * (dK_asks - dK_writes)
            dlog_decay = back_chunk_decays(log_decay, db, G, starts, last, n)
        dq, dk, dv, dbeta = (
            join_chunks(a, n) for a in (dQ, dK_asks + dK_writes, rate * dr_value, drate)
        )
        return dq, dk, dv, dbeta, dlog_decay, None if state is None else dS

    return (join_chunks(y, n), last), back


def l2_norm(x, eps=1e-6):
    """y = x r, r = 1/√(Σ x² + eps): a vector of length (almost) one.   x (..., d)

    What points along x cannot change its length: dx = r dy - x r³ ⟨dy, x⟩.

    Saved: x, r (one number a vector).
    """
    xp = array_module(x)
    r = 1 / xp.sqrt((x * x).sum(axis=-1, keepdims=True) + eps)

    def back(dy):
        return r * dy - x * r**3 * (dy * x).sum(axis=-1, keepdims=True)

    return x * r, back
