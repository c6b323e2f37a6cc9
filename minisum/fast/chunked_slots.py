"""`slot_product` in chunks: the decays of `decayed_products`, turned from keys to values."""

from minisum.fast import chunks, one_real_type
from minisum.fast.cuda.recording import matmul
from minisum.fast.decayed_products import decayed_products
from minisum.ops.products import transposed

# Tokens a chunk, each pair of which has C exponentials a slot.
CHUNK = 16


def slot_product(q, k, v, log_decay, state=None):
    """`minisum.ops.slot_product`, C tokens at a time: time O(n (C (K + V) + K V)).

    In a chunk, with b the running sum of log_decay from its start, S_c the state there and
    P = q @ k.T: y_i = e^{b_i} ⊙ (q_i @ S_c) + Σ_{j<=i} P_ij e^{b_i - b_j} ⊙ v_j, and
    S_{c+1} = S_c ⊙ e^{b_C} + k.T @ (e^{b_C - b} ⊙ v). That sum is what the gradient of
    ⟨x|y⟩_ij = Σ_κ x_iκ y_jκ e^{b_iκ - b_jκ} gives x for the gradient P and y = v, and its own
    gradients are the gradient for y and, for P, the product ⟨dy|v⟩ itself.

    Since b occurs only as e^b beside y and e^{-b} beside v: db = y ⊙ dy - v ⊙ dv, plus G ⊙ S_{c+1}
    added over K at the chunk's end, with G the gradient of S_{c+1}.

    Saved: q, k, v, log_decay, y, one state a chunk.
    """
    if not one_real_type(q, k, v, log_decay, state):
        return NotImplemented
    return chunks.in_pieces(_slot_product, (q, k, v, log_decay), state)


def _slot_product(q, k, v, log_decay, state):
    n = q.shape[2]
    C = min(CHUNK, n)
    Q, K, V = (chunks.split(a, C) for a in (q, k, v))
    b, from_start, to_end, keep = chunks.decays(log_decay, C)
    keep = transposed(keep)
    starts, last = chunks.carry(keep, matmul(transposed(K), V * to_end), state)
    within, _ = decayed_products(b)[1](matmul(Q, transposed(K)), V, V)
    Y = within + matmul(Q, starts) * from_start

    def back(gradients):
        dy, dlast = gradients
        dY = chunks.split(dy, C)
        b, from_start, to_end, keep = chunks.decays(log_decay, C)
        products, back_products = decayed_products(b)
        read = dY * from_start
        G, dstate = chunks.carry(
            transposed(keep), matmul(transposed(Q), read), dlast, backwards=True
        )
        _, dV = back_products(matmul(Q, transposed(K)), dY, V)
        dV += matmul(K, G) * to_end
        dP = products(dY, V)
        dQ = matmul(dP, K) + matmul(read, transposed(starts))
        dK = matmul(transposed(dP), Q) + matmul(V * to_end, transposed(G))
        states = (transposed(a) for a in (G, starts, last))
        dlog_decay = chunks.back_decays(log_decay, Y * dY - V * dV, *states, n)
        dq, dk, dv = (chunks.join(a, n) for a in (dQ, dK, dV))
        return dq, dk, dv, dlog_decay, None if state is None else dstate

    return (chunks.join(Y, n), last), back
