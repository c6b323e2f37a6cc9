"""`causal_product` in chunks: products of matrices inside a chunk, one state carried across."""

import numpy as np

from minisum.backend import array_module
from minisum.fast import chunks, one_real_type
from minisum.fast.cuda.recording import matmul
from minisum.fast.decayed_products import decayed_products
from minisum.ops.products import for_each_head, transposed
from minisum.ops.running import sum_to

# Tokens a chunk. With a decay for each channel the weights inside a chunk cost C·K exponentials a
# token instead of C, hence the smaller one on a processor.
CHUNK, CHUNK_BY_CHANNEL = 64, 16


def causal_product(q, k, v, log_decay=None, state=None):
    """`minisum.ops.causal_product`, C tokens at a time: time O(n (C (K + V) + K V)).

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
    if not one_real_type(q, k, v, log_decay, state):
        return NotImplemented
    return chunks.in_pieces(_causal_product, (q, k, v, log_decay), state)


def _causal_product(q, k, v, log_decay, state):
    n = q.shape[2]
    by_channel = log_decay is not None and log_decay.shape[-1] > 1
    narrow = by_channel and array_module(q) is np
    C = min(CHUNK_BY_CHANNEL if narrow else CHUNK, n)
    has_state = state is not None

    V = chunks.split(v, C)
    Q, K = (for_each_head(chunks.split(a, C), V) for a in (q, k))
    b, from_start, to_end, keep = chunks.decays(log_decay, C)
    starts, last = chunks.carry(keep, matmul(transposed(K * to_end), V), state)
    y = matmul(decayed_products(b)[0](Q, K), V) + matmul(Q * from_start, starts)

    def back(gradients):
        dy, dlast = gradients
        dY = chunks.split(dy, C)
        b, from_start, to_end, keep = chunks.decays(log_decay, C)
        products, back_products = decayed_products(b)
        dstarts = matmul(transposed(Q * from_start), dY)
        G, dstate = chunks.carry(keep, dstarts, dlast, backwards=True)
        dQ, dK = back_products(matmul(dY, transposed(V)), Q, K)
        dQ += matmul(dY, transposed(starts)) * from_start
        dK += matmul(V, transposed(G)) * to_end
        dV = matmul(transposed(products(Q, K)), dY) + matmul(K * to_end, G)
        dlog_decay = None
        if log_decay is not None:
            dlog_decay = chunks.back_decays(log_decay, Q * dQ - K * dK, G, starts, last, n)
        dq, dk, dv = (chunks.join(a, n) for a in (dQ, dK, dV))
        dq, dk = sum_to(dq, q.shape), sum_to(dk, k.shape)
        return dq, dk, dv, dlog_decay, dstate if has_state else None

    return (chunks.join(y, n), last), back
