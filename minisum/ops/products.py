"""Attention without softmax: a matrix of sums Σ k.T @ v, written by keys and read by queries.

Without the softmax the product q @ k.T @ v can be taken from the right: first S = k.T @ v, of K×V
numbers, then q @ S. Tokens meet in S alone, so time is linear in n and S is all there is to
remember.
"""

from minisum.backend import add_into, array_module
from minisum.fast.cuda.recording import matmul
from minisum.ops.chunks import (
    back_chunk_decays,
    carry,
    chunk_decays,
    decay_matrix,
    in_pieces,
    join_chunks,
    lower,
    split_chunks,
    transposed,
)

# Tokens a chunk. With a decay for each channel the weights inside a chunk cost C·K exponentials a
# token instead of C, hence the smaller one.
CHUNK, CHUNK_BY_CHANNEL = 64, 16


def full_product(q, k, v, state=None):
    """y = q @ S, S = state + k.T @ v, the same S for every token.

    q, k (B, H, n, K), v (B, H, n, V), state (B, H, K, V) or None for 0 -> y (B, H, n, V) and S.

    y is linear in q and S, S in k and v: dS += q.T @ dy; dq = dy @ S.T, dk = v @ dS.T,
    dv = k @ dS, dstate = dS.

    Saved: q, k, v, S.
    """
    S = matmul(transposed(k), v)
    has_state = state is not None
    if has_state:
        S = S + state

    def back(gradients):
        dy, dS = gradients
        total = matmul(transposed(q), dy)
        if dS is not None:
            total = total + dS
        dstate = total if has_state else None
        dq, dk = matmul(dy, transposed(S)), matmul(v, transposed(total))
        return dq, dk, matmul(k, total), dstate

    return (matmul(q, S), S), back


def causal_product(q, k, v, log_decay=None, state=None, chunk=None):
    """y_t = q_t @ S_t, S_t = a_t.T ⊙ S_{t-1} + k_t.T @ v_t with a = exp(log_decay) <= 1.

    q, k (B, H, n, K), v (B, H, n, V), log_decay <= 0 one a head (.., n, 1) or one a key channel
    (.., n, K) or None for no decay (leading axes may be 1), state S_0 (B, H, K, V) or None for 0
    -> y (B, H, n, V) and S_n. Time O(n (C (K + V) + K V)). Yang et al. 2024, section 4.

    In a chunk, with b the running sum of log_decay from its start, S_c the state there and
    A_ij = Σ_κ q_iκ k_jκ exp(b_iκ - b_jκ) for j <= i:
    y = (e^b ⊙ q) @ S_c + A @ v, and S_{c+1} = e^{b_C} ⊙ S_c + (e^{b_C - b} ⊙ k).T @ v.

    Backward: dA = dy @ v.T up to the diagonal, and from it each factor of A its part: without
    decay dq = dA @ k, dk = dA.T @ q; dv = A.T @ dy. Let G be dS_{c+1}, carried from the end:
    dS_c = e^{b_C} ⊙ G + (e^b ⊙ q).T @ dy, before the first chunk dstate. Then dq gains
    e^b ⊙ (dy @ S_c.T), dk gains e^{b_C - b} ⊙ (v @ G.T), dv gains (e^{b_C - b} ⊙ k) @ G. Since b
    occurs only as e^b ⊙ q, e^{-b} ⊙ k and in S_{c+1}, its own gradient is db = q ⊙ dq - k ⊙ dk,
    plus G ⊙ S_{c+1} added over V at the chunk's end; dlog_decay is the sum of db over the later
    tokens of the chunk. (A difference: it is as exact as q ⊙ dq, even where decays are so strong
    that it is much smaller.)

    Saved: q, k, v, log_decay, one state a chunk. A is made again.
    """

    def recurrence(q, k, v, log_decay, state):
        return _causal_product(q, k, v, log_decay, state, chunk)

    return in_pieces(recurrence, (q, k, v, log_decay), state)


def _causal_product(q, k, v, log_decay, state, chunk):
    n = q.shape[2]
    by_channel = log_decay is not None and log_decay.shape[-1] > 1
    C = min(chunk or (CHUNK_BY_CHANNEL if by_channel else CHUNK), n)
    has_state = state is not None

    Q, K, V = (split_chunks(a, C) for a in (q, k, v))
    b, from_start, to_end, keep = chunk_decays(log_decay, C)
    starts, last = carry(keep, matmul(transposed(K * to_end), V), state)
    y = matmul(_weights(Q, K, b), V) + matmul(Q * from_start, starts)

    def back(gradients):
        dy, dlast = gradients
        dY = split_chunks(dy, C)
        b, from_start, to_end, keep = chunk_decays(log_decay, C)
        dstarts = matmul(transposed(Q * from_start), dY)
        G, dstate = carry(keep, dstarts, dlast, backwards=True)
        dQ, dK = _back_weights(matmul(dY, transposed(V)), Q, K, b)
        dQ += matmul(dY, transposed(starts)) * from_start
        dK += matmul(V, transposed(G)) * to_end
        dV = matmul(transposed(_weights(Q, K, b)), dY) + matmul(K * to_end, G)
        dlog_decay = None
        if log_decay is not None:
            dlog_decay = back_chunk_decays(log_decay, Q * dQ - K * dK, G, starts, last, n)
        dq, dk, dv = (join_chunks(a, n) for a in (dQ, dK, dV))
        return dq, dk, dv, dlog_decay, dstate if has_state else None

    return (join_chunks(y, n), last), back


def _weights(Q, K, b):
    """A (..., C, C): what each token of a chunk reads of those up to it."""
    xp = array_module(Q)
    C = Q.shape[-2]
    if b is None:
        return xp.where(lower(xp, C), matmul(Q, transposed(K)), 0)
    if b.shape[-1] == 1:
        return matmul(Q, transposed(K)) * decay_matrix(b)
    A = xp.zeros((*Q.shape[:-1], C), Q.dtype)
    for i, j in _diagonals(C):
        decay = xp.exp(b[..., i, :] - b[..., j, :])
        read = (Q[..., i, :] * K[..., j, :] * decay).sum(axis=-1)
        A[..., xp.arange(C)[i], xp.arange(C)[j]] = read
    return A


def _diagonals(C):
    """Pairs of slices (i, j) with i - j = 0, then 1, ..., C - 1."""
    return ((slice(gap, C), slice(0, C - gap)) for gap in range(C))


def _back_weights(dA, Q, K, b):
    """dA (..., C, C), its upper triangle of no meaning -> dQ, dK."""
    xp = array_module(Q)
    C = Q.shape[-2]
    if b is None or b.shape[-1] == 1:
        dscores = xp.where(lower(xp, C), dA, 0) if b is None else dA * decay_matrix(b)
        return matmul(dscores, K), matmul(transposed(dscores), Q)
    dQ, dK = xp.zeros_like(Q), xp.zeros_like(K)
    for i, j in _diagonals(C):
        dA_gap = dA[..., xp.arange(C)[i], xp.arange(C)[j]][..., None]
        d = dA_gap * xp.exp(b[..., i, :] - b[..., j, :])
        add_into(dQ[..., i, :], d * K[..., j, :])
        add_into(dK[..., j, :], d * Q[..., i, :])
    return dQ, dK
