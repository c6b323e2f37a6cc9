"""The delta rule in chunks: a small triangular system inside each, one state carried across."""

import numpy as np

from minisum.backend import add_into, array_module
from minisum.fast import chunks, has_fast_forms, one_real_type
from minisum.fast.cuda.recording import matmul
from minisum.fast.decayed_products import decayed_products
from minisum.ops.products import transposed

# Tokens a chunk; fewer where a decay for each channel takes an exponential for each pair of them.
CHUNK, CHUNK_BY_CHANNEL = 32, 16


def delta_rule(q, k, v, beta, log_decay=None, state=None, removal=None):
    """`minisum.ops.delta`, C tokens at a time: time O(n (C (K + V) + K V)).

    In a chunk let b be the running sum of log_decay, ⟨x|y⟩_ij = Σ_κ x_iκ y_jκ exp(b_iκ - b_jκ) for
    j <= i, S_c the state at its start. Each u depends on those before it: a triangular system
    L @ u = r, with L = 1 + β ⊙ ⟨removal|k⟩ strictly below the diagonal and
    r = β ⊙ (v - e^b ⊙ removal @ S_c). Solved for both parts of r before S_c is known,
    u = X - Z @ S_c. Then, with A = ⟨q|k⟩, y = e^b ⊙ q @ S_c + A @ u and
    S_{c+1} = e^{b_C} ⊙ S_c + (e^{b_C - b} ⊙ k).T @ u.

    Backward: G = dS_{c+1} comes from the next chunk; du = A.T @ dy + e^{b_C - b} ⊙ k @ G and
    dS_c = e^{b_C} ⊙ G + (e^b ⊙ q).T @ dy - Z.T @ du, before the first chunk dstate. The adjoint of
    a solve is a solve with the transpose: L.T @ dr = [du, -du @ S_c.T] and dL = -dr @ [X, Z].T. All
    else are products, each linear in its factors: dA = dy @ u.T; dv = β ⊙ dr of the first part of
    r; dbeta sums what stands beside β in r and L. What is asked, q and removal, is multiplied by
    e^b, what is written, k, by e^{-b}, and S_{c+1} by e^{b_C}:
    db = q ⊙ dq + removal ⊙ dremoval - k ⊙ dk, plus G ⊙ S_{c+1} at the chunk's end; dlog_decay sums
    db over later tokens. Where removal is k, its gradient is the sum of both.

    Saved: q, k, v, beta, log_decay, removal; of each chunk X, Z, u, the decays in it, L, A,
    ⟨removal|k⟩, q, k and removal times decays, and one state.
    """
    if not one_real_type(q, k, v, beta, log_decay, state, removal):
        return NotImplemented
    (y, S), back_pieces = chunks.in_pieces(_delta_rule, (q, k, v, beta, log_decay, removal), state)

    def back(gradients):
        *dinputs, dremoval, dstate = back_pieces(gradients)
        return (*dinputs, dstate) if removal is None else (*dinputs, dstate, dremoval)

    return (y, S), back


def _delta_rule(q, k, v, beta, log_decay, removal, state):
    xp = array_module(q)
    n = q.shape[2]
    narrow = log_decay is not None and log_decay.shape[-1] > 1 and xp is np
    C = min(CHUNK_BY_CHANNEL if narrow else CHUNK, n)
    Q, K, V, rate = (chunks.split(a, C) for a in (q, k, v, beta))
    asked = K if removal is None else chunks.split(removal, C)
    b, from_start, to_end, keep = chunks.decays(log_decay, C)
    products, back_products = decayed_products(b)
    below = chunks.lower(xp, C, diagonal=False)

    overlap = xp.where(below, products(asked, K), 0)
    L = xp.eye(C, dtype=q.dtype) + rate * overlap
    asks, writes, reads = asked * from_start, K * to_end, Q * from_start
    XZ = unit_triangular_solve(L, rate * xp.concatenate([V, asks], axis=-1))
    X, Z = XZ[..., : V.shape[-1]], XZ[..., V.shape[-1] :]
    A = products(Q, K)

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
        drate = (dr_value * V).sum(-1, keepdims=True) + (dr_key * asks).sum(-1, keepdims=True)
        drate += (dL * overlap).sum(-1, keepdims=True)

        dQ, dK = back_products(matmul(dY, transposed(U)), Q, K)
        dasked, dK_asked = back_products(xp.where(below, rate * dL, 0), asked, K)
        dQ += matmul(dY, transposed(starts)) * from_start
        dasked += rate * dr_key * from_start
        dK += dK_asked
        dK += matmul(U, transposed(G)) * to_end

        db = None
        if log_decay is not None:
            db = Q * dQ + (K * (dasked - dK) if removal is None else asked * dasked - K * dK)
            db = chunks.back_decays(log_decay, db, G, starts, last, n)
        dK, dremoval = (dasked + dK, None) if removal is None else (dK, chunks.join(dasked, n))
        dq, dk, dv, dbeta = (chunks.join(a, n) for a in (dQ, dK, rate * dr_value, drate))
        return dq, dk, dv, dbeta, db, dremoval, None if state is None else dS

    return (chunks.join(y, n), last), back


@has_fast_forms
def unit_triangular_solve(L, r, turned=False):
    """x with L @ x = r or, turned, L.T @ x = r; L (..., C, C) lower triangular, unit diagonal."""
    xp = array_module(r)
    if turned:
        return xp.linalg.solve(transposed(L), r)
    # Entries of L may be as large as β = 2. Scaled by powers of 2, none exceeds the diagonal, and
    # the solver's pivoting swaps no token with a later one.
    grow = 2.0 ** xp.arange(L.shape[-1], dtype=L.dtype)[:, None]
    return grow * xp.linalg.solve(L / grow * transposed(grow), r / grow)
