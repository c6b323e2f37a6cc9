"""`log_linear_product` level by level: near levels inside a chunk, far ones between halves."""

from minisum.backend import add_into, array_module
from minisum.fast import chunks, one_real_type
from minisum.fast.cuda.recording import matmul
from minisum.fast.decayed_products import decay_matrix
from minisum.ops.products import transposed
from minisum.ops.running import reverse_cumsum

# Tokens a chunk, a power of two.
CHUNK = 64


def log_linear_product(q, k, v, log_decay, weights, state=None):
    """`minisum.ops.log_linear_product` of a text from its start, n padded to a power of two chunks.

    Tokens i > j meet at the level of the highest binary digit in which they differ. In a chunk:
    y = ((q @ k.T) ⊙ Γ ⊙ λ_i,level(i,j)) @ v. Beyond, cut the chunks into blocks of 2^p and these
    into pairs: every token of a second block reads the state E at the end of the first, faded by
    what lies between, with the weight of level p + log2(2C). Two blocks make one of the next level,
    E = a E_first + E_second.

    Backward, each product by its factors; E's gradients from the largest blocks down. Since decays
    occur only as e^b beside q and e^{-b} beside k, b their sum over the text, dlog_decay is the sum
    of q·dq - k·dk over later tokens.

    Saved: q, k, v, log_decay, weights, the levels of the pairs of a chunk.
    """
    if state is not None or not one_real_type(q, k, v, log_decay, weights):
        return NotImplemented
    xp, n = array_module(q), q.shape[2]
    C = min(CHUNK, 1 << (n - 1).bit_length())
    near = C.bit_length()  # levels inside a chunk, the token itself included
    N = 1 << (-(-n // C) - 1).bit_length()
    i = xp.arange(C)
    differ = i[:, None] ^ i
    level = sum(((differ >= 1 << p).astype(int) for p in range(near - 1)), 0 * differ)

    def split(x):
        padded = xp.zeros((*x.shape[:2], N * C, x.shape[-1]), x.dtype)
        padded[:, :, :n] = x
        return chunks.split(padded, C)

    def forward():
        """What both directions need: chunks, their weights, and of each far level the states."""
        Q, K, V, g, lam = (split(x) for x in (q, k, v, log_decay, weights))
        b = g.cumsum(axis=-2)
        total = b[..., -1:, :]  # (B, H, N, 1, 1)
        scores = matmul(Q, transposed(K)) * decay_matrix(b)
        shares = sum(lam[..., own : own + 1] * (level == own) for own in range(near))
        E, D, far = matmul(transposed(K * xp.exp(total - b)), V), total, []
        for p in range(N.bit_length() - 1):
            # Shifted, not a chunk's own total subtracted: its rounding would know the future.
            before = xp.zeros_like(_second(total, p))
            before[:, :, :, 1:] = _second(total, p)[:, :, :, :-1]
            fade = xp.exp(before.cumsum(axis=3) + _second(b, p))
            far.append((p, E[:, :, 0::2], xp.exp(D[:, :, 1::2]), fade))
            E = far[-1][2] * E[:, :, 0::2] + E[:, :, 1::2]
            D = D[:, :, 0::2] + D[:, :, 1::2]
        return Q, K, V, lam, xp.exp(total - b), scores, shares, far

    Q, _, V, lam, _, scores, shares, far = forward()
    Y = matmul(scores * shares, V)
    for p, E, _, fade in far:
        reads = fade * _second(lam[..., near + p : near + p + 1] * Q, p)
        add_into(_second(Y, p), matmul(reads, E[:, :, :, None]))

    def back(gradients):
        dY = split(gradients[0])
        Q, K, V, lam, to_end, scores, shares, far = forward()
        dP = matmul(dY, transposed(V))
        dV, dlam = matmul(transposed(scores * shares), dY), xp.zeros_like(lam)
        for own in range(near):
            dlam[..., own] = (dP * scores * (level == own)).sum(axis=-1)
        dscores = dP * shares * decay_matrix(split(log_decay).cumsum(axis=-2))
        dQ, dK = matmul(dscores, K), matmul(transposed(dscores), Q)
        dE = []
        for p, E, _, fade in far:
            own = slice(near + p, near + p + 1)
            weight, queries, read = (_second(x, p) for x in (lam[..., own], Q, dY))
            dreads = fade * matmul(read, transposed(E)[:, :, :, None])
            add_into(_second(dQ, p), weight * dreads)
            _second(dlam, p)[..., own] = (dreads * queries).sum(axis=-1, keepdims=True)
            dE.append(matmul(transposed(fade * weight * queries), read).sum(axis=3))
        G = xp.zeros((*Q.shape[:2], 1, Q.shape[-1], V.shape[-1]), Q.dtype)
        for (_, _, keep, _), read in zip(reversed(far), reversed(dE), strict=True):
            first, second = keep * G + read, G
            G = xp.stack([first, second], axis=3).reshape(*G.shape[:2], -1, *G.shape[3:])
        dK += to_end * matmul(V, transposed(G))
        dV += matmul(K * to_end, G)
        dq, dk, dv, dweights = (chunks.join(x, n) for x in (dQ, dK, dV, dlam))
        db = (q * dq - k * dk).sum(axis=-1, keepdims=True)
        return dq, dk, dv, reverse_cumsum(db, 2), dweights, None

    return (chunks.join(Y, n), (_states(k, v, log_decay, weights.shape[-1]), n)), back


def _second(x, p):
    """The second blocks of 2^p chunks of each pair: (B, H, N, ..) -> (B, H, pairs, 2^p, ..)."""
    return x.reshape(*x.shape[:2], -1, 2, 1 << p, *x.shape[3:])[:, :, :, 1]


def _states(k, v, log_decay, levels):
    """The states (B, H, L, K, V) after the last of the n tokens."""
    xp, n = array_module(k), k.shape[2]
    faded = k[:, :, :-1] * xp.exp(reverse_cumsum(log_decay, 2)[:, :, 1:])
    S = xp.zeros((*k.shape[:2], levels, k.shape[-1], v.shape[-1]), k.dtype)
    S[:, :, 0] = matmul(transposed(k[:, :, n - 1 :]), v[:, :, n - 1 :])
    for level in range(1, levels):
        if (n - 1) >> (level - 1) & 1:
            start = (n - 1) >> level << level
            block = slice(start, start + (1 << (level - 1)))
            S[:, :, level] = matmul(transposed(faded[:, :, block]), v[:, :, block])
    return S
