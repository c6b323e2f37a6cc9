"""`rectified_attention` a block of queries at a time, so that no n·m weights are kept."""

import math

from minisum.backend import add_into, array_module
from minisum.fast import one_real_type
from minisum.fast.cuda.recording import matmul
from minisum.ops.products import transposed
from minisum.ops.softmax_attention import first_query, without_padding

# Weights a head that are worked on at a time.
CACHED = 65536


def rectified_attention(q, k, v, mask=None, causal=False):
    """`minisum.ops.rectified_attention`; the weights are made again for the gradient.

    A key of zeros has no weight and no gradient, so that a mask needs no more.

    Saved: q, k, v.
    """
    if not one_real_type(q, k, v):
        return NotImplemented
    xp, (n, m), scale = array_module(q), (q.shape[2], k.shape[2]), 1 / math.sqrt(q.shape[-1])
    k, v = without_padding(k, mask), without_padding(v, mask)
    first, rows = first_query(n, m) if causal else m, max(1, CACHED // max(m, 1))
    blocks = [(i, min(i + rows, n)) for i in range(0, n, rows)]

    def weights(start, end):
        """Of a block's queries for the keys up to its last, and how many these are."""
        keys = min(m, first + end)
        a = matmul(q[:, :, start:end] * scale, transposed(k[:, :, :keys]))
        seen = xp.arange(keys) <= first + xp.arange(start, end)[:, None]
        return xp.maximum(xp.where(seen, a, 0), 0), keys

    def back(dy):
        dq, dk, dv = (xp.zeros_like(x) for x in (q, k, v))
        for start, end in blocks:
            a, keys = weights(start, end)
            dy_block, q_block = dy[:, :, start:end], q[:, :, start:end]
            add_into(dv[:, :, :keys], matmul(transposed(a), dy_block))
            ds = xp.where(a > 0, matmul(dy_block, transposed(v[:, :, :keys])), 0) * scale
            dq[:, :, start:end] = matmul(ds, k[:, :, :keys])
            add_into(dk[:, :, :keys], matmul(transposed(ds), q_block))
        return dq, dk, dv, None

    y = xp.empty((*q.shape[:3], v.shape[-1]), q.dtype)
    for start, end in blocks:
        a, keys = weights(start, end)
        y[:, :, start:end] = matmul(a, v[:, :, :keys])
    return y, back
