"""Attention: products of many heads at a time, and one kernel each way between them."""

import math
from functools import partial
from itertools import product

from minisum.backend import add_into, array_module
from minisum.fast.cuda import compiling, softmax
from minisum.fast.cuda.recording import matmul
from minisum.ops.softmax_attention import first_query, without_padding

# Weights that are worked on at a time: 32 MB in float32, which the second-level cache holds.
CACHED = 2**23
# Fewer queries at a time would read the keys of a long text too often.
LEAST_QUERIES = 128
# Where fewer heads fit, one alone is faster: cuBLAS shares out a single product's long sums over
# the keys, as in p @ v, over the whole device, and those of several products it does not.
LEAST_HEADS = 4


def attention(q, k, v, mask=None, causal=False):
    """All between the products in one kernel each way, CACHED weights at a time.

    If that is not all of them at once, they are made anew on the way back, and memory is linear in
    n.

    Saved: q, k, v, mask, and p where all of it fits.
    """
    if not compiling.runs_on(q, k, v):
        return NotImplemented
    xp, dtype, shapes = array_module(q), q.dtype, (q.shape, k.shape, v.shape)
    scale = 1 / math.sqrt(q.shape[-1])
    (B, H, n, _), (m, e) = q.shape, v.shape[2:]
    blocks = partial(_blocks_of_weights, q, k, v, mask, causal, scale)
    if B * H * n * m <= CACHED:
        blocks = partial(iter, list(blocks()))
    y = _heads_side_by_side(xp.empty, (B, H, n, e), dtype)
    for (asking, _), (_, _, v_block, p) in blocks():
        y[asking] = matmul(p, v_block)

    def back(dy):
        dq, dk, dv = (
            _heads_side_by_side(make, shape, dtype)
            for make, shape in zip((xp.empty, xp.zeros, xp.zeros), shapes, strict=True)
        )
        for (asking, seen), (q_block, k_block, v_block, p) in blocks():
            dy_block = xp.ascontiguousarray(dy[asking])
            add_into(dv[seen], matmul(p.swapaxes(-1, -2), dy_block))
            dp = matmul(dy_block, v_block.swapaxes(-1, -2))
            ds = softmax.attention_weights_back(dp, p, scale)
            dq[asking] = matmul(ds, k_block)
            add_into(dk[seen], matmul(ds.swapaxes(-1, -2), q_block))
        return dq, dk, dv, None

    return y, back


def _blocks_of_weights(q, k, v, mask, causal, scale):
    """Where queries and keys are; and of these alone, without gaps, q, k, v and p.

    A block is as many texts as CACHED has room for, else as many heads of one text but at least
    LEAST_HEADS, else one head, and of that as many queries but at least LEAST_QUERIES.
    """
    xp = array_module(q)
    (B, H, n, _), m = q.shape, k.shape[2]
    first = first_query(n, m) if causal else 0
    fitting = CACHED // max(1, n * m)
    fitting = fitting if fitting >= LEAST_HEADS else 1
    texts, heads = max(1, fitting // max(1, H)), max(1, min(H, fitting))
    queries = max(LEAST_QUERIES, CACHED // max(1, heads * m))
    for text, head in product(range(0, B, texts), range(0, H, heads)):
        some = slice(text, text + texts), slice(head, head + heads)
        real = None if mask is None else mask[some[0]]
        k_some = xp.ascontiguousarray(without_padding(k[some], real))
        v_some = xp.ascontiguousarray(without_padding(v[some], real))
        for start in range(0, n, queries):
            asking = slice(start, min(start + queries, n))
            seen = slice(0, asking.stop + first if causal else m)
            q_block = xp.ascontiguousarray(q[*some, asking])
            k_block, v_block = k_some[:, :, seen], v_some[:, :, seen]
            scores = matmul(q_block, k_block.swapaxes(-1, -2))
            keys = None if real is None else real[:, seen]
            p = softmax.attention_weights(scores, keys, causal, scale)
            yield ((*some, asking), (*some, seen)), (q_block, k_block, v_block, p)


def _heads_side_by_side(make, shape, dtype):
    """An array (B, H, n, h) by `make` in whose memory merging heads has nothing to move."""
    B, H, n, h = shape
    return make((B, n, H, h), dtype).transpose(0, 2, 1, 3)
