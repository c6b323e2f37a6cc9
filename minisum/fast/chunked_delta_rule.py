"""The delta rule in chunks: a small triangular system inside each, one state carried across."""

from minisum.backend import add_into, array_module
from minisum.fast import chunks, has_fast_forms, one_real_type
from minisum.fast.cuda.recording import matmul
from minisum.ops.products import transposed

# Tokens a chunk.
CHUNK = 32


def delta_rule(q, k, v, beta, log_decay=None, state=None):
    """`minisum.ops.delta`, C tokens at a time: time O(n (C (K + V) + K V)).

    In a chunk let b be the running sum of log_decay, Γ_ij = exp(b_i - b_j) for j <= i, S_c the
    state at its start. Each u depends on those before it: a triangular system L @ u = r, with
    L = 1 + β ⊙ (k @ k.T) ⊙ Γ strictly below the diagonal and r = β ⊙ (v - e^b ⊙ k @ S_c). Solved
    for both parts of r before S_c is known, u = X - Z @ S_c. Then, with A = (q @ k.T) ⊙ Γ,
    y = e^b ⊙ q @ S_c + A @ u and S_{c+1} = e^{b_C} S_c + (e^{b_C - b} ⊙ k).T @ u.

    Backward: G = dS_{c+1} comes from the next chunk; du = A.T @ dy + e^{b_C - b} ⊙ k @ G and
    dS_c = e^{b_C} G + (e^b ⊙ q).T @ dy - Z.T @ du, before the first chunk dstate. The adjoint of a
    solve is a solve with the transpose: L.T @ dr = [du, -du @ S_c.T] and dL = -dr @ [X, Z].T. All
    else are products, each linear in its factors: dq = e^b ⊙ (dy @ S_c.T) + (dA ⊙ Γ) @ k with
    dA = dy @ u.T; dv = β ⊙ dr of the first part of r; dbeta sums what stands beside β in r and L.
    A key plays two parts: it asks (in the rows of L and in r), and it writes (in the columns of L
    and A and in S_{c+1}); dk = dk_asks + dk_writes. As b occurs only as e^b beside q and the asking
    k, as e^{-b} beside the writing k, and in S_{c+1}: db = q ⊙ dq + k ⊙ dk_asks - k ⊙ dk_writes,
    plus G ⊙ S_{c+1} at the chunk's end; dlog_decay sums db over later tokens.

    Saved: q, k, v, beta, log_decay; of each chunk X, Z, u, Γ whole and below the diagonal, L, A,
    (k @ k.T) ⊙ Γ, the decays, q and twice k times these, and one state.
    """
    if not one_real_type(q, k, v, beta, log_decay, state):
        return NotImplemented
    return chunks.in_pieces(_delta_rule, (q, k, v, beta, log_decay), state)


def _delta_rule(q, k, v, beta, log_decay, state):
    xp = array_module(q)
    n = q.shape[2]
    C = min(CHUNK, n)
    Q, K, V, rate = (chunks.split(a, C) for a in (q, k, v, beta))
    b, from_start, to_end, keep = chunks.decays(log_decay, C)
    gamma = chunks.lower(xp, C).astype(q.dtype) if log_decay is None else chunks.decay_matrix(b)
    gamma_below = xp.where(chunks.lower(xp, C, diagonal=False), gamma, 0)

    overlap = matmul(K, transposed(K)) * gamma_below
    L = xp.eye(C, dtype=q.dtype) + rate * overlap
    asks, writes, reads = K * from_start, K * to_end, Q * from_start
    XZ = unit_triangular_solve(L, rate * xp.concatenate([V, asks], axis=-1))
    X, Z = XZ[..., : V.shape[-1]], XZ[..., V.shape[-1] :]
    A = matmul(Q, transposed(K)) * gamma

    S = xp.zeros((*q.shape[:2], K.shape[-1], V.shape[-1]), q.dtype) if state is None else state
    starts = xp.empty((*K.shape[:3], *S.shape[2:]), q.dtype)
    U = xp.empty_like(V)
    for c in range(K.shape[2]):
        starts[:, :, c] = S
        U[:, :, c] = X[:, :, c] - matmul(Z[:, :, c], S)
        kept = S if keep is None else keep[:, :, c] * S
        S = kept + matmul(transposed(writes[:, :, c]), U[:, :, c])
    last = S
    y = matmul(reads, starts) + matmul(A, U)

    def back(gradients):
        dy, dlast = gradients
        dY = chunks.split(dy, C)
        dU, dstarts = matmul(transposed(A), dY), matmul(transposed(reads), dY)
        G = xp.empty_like(starts)
        dS = xp.zeros_like(last) if dlast is None else dlast
        for c in reversed(range(K.shape[2])):
            G[:, :, c] = dS
            add_into(dU[:, :, c], matmul(writes[:, :, c], dS))
            dS = (dS if keep is None else keep[:, :, c] * dS) + dstarts[:, :, c]
            dS = dS - matmul(transposed(Z[:, :, c]), dU[:, :, c])

        dXZ = xp.concatenate([dU, -matmul(dU, transposed(starts))], axis=-1)
        dr = unit_triangular_solve(L, dXZ, turned=True)
        dL = -matmul(dr, transposed(XZ))
        dr_value, dr_key = dr[..., : V.shape[-1]], dr[..., V.shape[-1] :]
        doverlap = rate * dL * gamma_below
        dA = matmul(dY, transposed(U)) * gamma

        dQ = matmul(dY, transposed(starts)) * from_start + matmul(dA, K)
        dK_asks = rate * dr_key * from_start + matmul(doverlap, K)
        dK_writes = matmul(U, transposed(G)) * to_end
        dK_writes += matmul(transposed(dA), Q) + matmul(transposed(doverlap), K)
        drate = (dr_value * V).sum(-1, keepdims=True) + (dr_key * asks).sum(-1, keepdims=True)
        drate += (dL * overlap).sum(-1, keepdims=True)

        dlog_decay = None
        if log_decay is not None:
            db = Q * dQ + K * (dK_asks - dK_writes)
            dlog_decay = chunks.back_decays(log_decay, db, G, starts, last, n)
        dq, dk, dv, dbeta = (
            chunks.join(a, n) for a in (dQ, dK_asks + dK_writes, rate * dr_value, drate)
        )
        return dq, dk, dv, dbeta, dlog_decay, None if state is None else dS

    return (chunks.join(y, n), last), back


@has_fast_forms
def unit_triangular_solve(L, r, turned=False):
    """x with L @ x = r or, turned, L.T @ x = r; L (..., C, C) lower triangular, unit diagonal."""
    return array_module(r).linalg.solve(transposed(L) if turned else L, r)
