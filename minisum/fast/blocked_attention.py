"""Attention, a block of its weights at a time: n² of them are most of its work and memory."""

from itertools import product

from minisum.backend import add_into, array_module
from minisum.fast.cuda.recording import matmul
from minisum.ops.softmax_attention import first_query, without_padding


def attention_in_blocks(q, k, v, mask, causal, scale, keep, sizes, weights, weights_back):
    """`minisum.ops.attention` of scores q @ k.T * scale, with the functions for a block's weights.

    weights(scores, mask, causal, scale) and weights_back(dp, p, scale) may work in place. Unless
    kept, all weights are made anew on the way back, in memory linear in n. sizes: see `_blocks`.
    """
    xp, dtype, shapes = array_module(q), q.dtype, (q.shape, k.shape, v.shape)
    arguments, kept = (q, k, v, mask, causal, scale, sizes, weights), None
    if keep:
        arguments, kept = None, list(_blocks(*arguments))

    def blocks():
        return _blocks(*arguments) if kept is None else kept

    y = _heads_side_by_side(xp.empty, (*q.shape[:3], v.shape[3]), dtype)
    for (asking, _), (_, _, v_block, p) in blocks():
        y[asking] = matmul(p, v_block)

    def back(dy):
        dq, dk, dv = (
            _heads_side_by_side(make, shape, dtype)
            for make, shape in zip((xp.empty, xp.zeros, xp.zeros), shapes, strict=True)
        )
        for (asking, seen), (q_block, k_block, v_block, p) in blocks():
            dy_block = dy[asking]
            add_into(dv[seen], matmul(p.swapaxes(-1, -2), dy_block))
            ds = weights_back(matmul(dy_block, v_block.swapaxes(-1, -2)), p, scale)
            dq[asking] = matmul(ds, k_block)
            add_into(dk[seen], matmul(ds.swapaxes(-1, -2), q_block))
        return dq, dk, dv, None

    return y, back


def _blocks(q, k, v, mask, causal, scale, sizes, weights):
    """Where queries and keys are; and of these alone q, k, v and p.

    sizes: the weights of a block, least heads, least queries. A block is as many texts as fit, else
    as many heads of one text, else one head and as many queries.
    """
    (B, H, n, _), m, (most, least_heads, least_queries) = q.shape, k.shape[2], sizes
    first = first_query(n, m) if causal else 0
    fitting = most // max(1, n * m)
    fitting = fitting if fitting >= least_heads else 1
    texts, heads = max(1, fitting // max(1, H)), max(1, min(H, fitting))
    queries = max(least_queries, most // max(1, heads * m))
    for text, head in product(range(0, B, texts), range(0, H, heads)):
        some = slice(text, text + texts), slice(head, head + heads)
        real = None if mask is None else mask[some[0]]
        k_some, v_some = without_padding(k[some], real), without_padding(v[some], real)
        for start in range(0, n, queries):
            asking = slice(start, min(start + queries, n))
            seen = slice(0, asking.stop + first if causal else m)
            q_block, k_block, v_block = q[*some, asking], k_some[:, :, seen], v_some[:, :, seen]
            scores = matmul(q_block, k_block.swapaxes(-1, -2))
            p = weights(scores, None if real is None else real[:, seen], causal, scale)
            yield ((*some, asking), (*some, seen)), (q_block, k_block, v_block, p)


def _heads_side_by_side(make, shape, dtype):
    """An array (B, H, n, h) by `make` in whose memory merging heads has nothing to move."""
    B, H, n, h = shape
    return make((B, n, H, h), dtype).transpose(0, 2, 1, 3)
