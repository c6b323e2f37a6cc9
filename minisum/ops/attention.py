"""Softmax attention, the quadratic rival: every token looks at every other.

Two forms that give the same numbers. `attention` is the textbook and, on the host, holds all n²
weights; `attention_blocked` walks over blocks of queries and keys and holds one block's at a time.
"""

import math
from functools import partial
from itertools import product

import numpy as np

from minisum.backend import add_into, array_module
from minisum.fast import cuda as kernels
from minisum.fast.cuda.recording import matmul

# Weights that a GPU works on at a time: 32 MB in float32, which its second-level cache holds.
CACHED = 2**23
# Fewer queries at a time would read the keys of a long text too often.
LEAST_QUERIES = 128
# Where fewer heads fit, one alone is faster: cuBLAS shares out a single product's long sums over
# the keys, as in p @ v, over the whole device, and those of several products it does not.
LEAST_HEADS = 4


def split_heads(x, heads):
    """y[b, i, t, j] = x[b, t, i h + j]: the width cut into heads.   x (B, n, H·h) -> y (B, H, n, h)

    A permutation of entries; the gradient goes back the way it came: dx = merge_heads(dy).

    Saved: nothing.
    """

    def back(dy):
        return _merge(dy)

    return _split(x, heads), back


def merge_heads(x):
    """y[b, t, i h + j] = x[b, i, t, j]: the heads joined again.   x (B, H, n, h) -> y (B, n, H·h)

    The inverse of `split_heads`, and so dx = split_heads(dy).

    Saved: the number of heads.
    """
    heads = x.shape[1]

    def back(dy):
        return _split(dy, heads)

    return _merge(x), back


def _split(x, heads):
    B, n, d = x.shape
    return x.reshape(B, n, heads, d // heads).transpose(0, 2, 1, 3)


def _merge(x):
    B, H, n, h = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, n, H * h)


def attention(q, k, v, mask=None, causal=False):
    """y = p @ v, p = softmax(q @ k.T / √h) over the keys that may be seen.

    q (B, H, n, h), k (B, H, m, h), v (B, H, m, e), mask (B, m) bool over keys or None ->
    y (B, H, n, e). With `causal` the queries are the last n of the m tokens, and each sees itself
    and what came before. A query that may see no key gives zero, and passes zero back.
    Vaswani et al. 2017, equation 1.

    y is bilinear in p and v: dv = p.T @ dy and dp = dy @ v.T. Through the softmax, whose rows sum
    to one: ds = p ⊙ (dp - Σ_keys dp ⊙ p). Then the scores' product: dq = ds @ k / √h and
    dk = ds.T @ q / √h. A GPU works on CACHED weights at a time, and if there are more, keeps none.

    Saved: q, k, v, p (n·m numbers a head).
    """
    xp, scale = array_module(q), 1 / math.sqrt(q.shape[-1])
    if kernels.runs_on(q, k, v):
        return _attention_fused(q, k, v, mask, causal, scale)
    k, v = _without_padding(k, mask), _without_padding(v, mask)
    scores = matmul(q * scale, k.swapaxes(-1, -2))
    visible = _visible(xp, mask, causal, q.shape[2], k.shape[2])
    if visible is not None:
        scores = xp.where(visible, scores, -xp.inf)
    p = _softmax_in_place(scores)

    def back(dy):
        dv = matmul(p.swapaxes(-1, -2), dy)
        ds = matmul(dy, v.swapaxes(-1, -2))
        ds -= _row_dots(ds, p)
        ds *= p
        return matmul(ds, k) * scale, matmul(ds.swapaxes(-1, -2), q * scale), dv, None

    return matmul(p, v), back


def _attention_fused(q, k, v, mask, causal, scale):
    """`attention` with all between its products in one GPU kernel each way.

    CACHED weights at a time. If that is not all of them at once, they are made anew on the way
    back, and memory is linear in n.
    """
    xp, dtype, shapes = array_module(q), q.dtype, (q.shape, k.shape, v.shape)
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
            ds = kernels.attention_weights_back(dp, p, scale)
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
    offset = _offset(causal, n, m)
    fitting = CACHED // max(1, n * m)
    fitting = fitting if fitting >= LEAST_HEADS else 1
    texts, heads = max(1, fitting // max(1, H)), max(1, min(H, fitting))
    queries = max(LEAST_QUERIES, CACHED // max(1, heads * m))
    for text, head in product(range(0, B, texts), range(0, H, heads)):
        some = slice(text, text + texts), slice(head, head + heads)
        real = None if mask is None else mask[some[0]]
        k_some = xp.ascontiguousarray(_without_padding(k[some], real))
        v_some = xp.ascontiguousarray(_without_padding(v[some], real))
        for start in range(0, n, queries):
            asking = slice(start, min(start + queries, n))
            seen = slice(0, asking.stop + offset if causal else m)
            q_block = xp.ascontiguousarray(q[*some, asking])
            k_block, v_block = k_some[:, :, seen], v_some[:, :, seen]
            scores = matmul(q_block, k_block.swapaxes(-1, -2))
            keys = None if real is None else real[:, seen]
            p = kernels.attention_weights(scores, keys, causal, scale)
            yield ((*some, asking), (*some, seen)), (q_block, k_block, v_block, p)


def _heads_side_by_side(make, shape, dtype):
    """An array (B, H, n, h) by `make` in whose memory merging heads has nothing to move."""
    B, H, n, h = shape
    return make((B, n, H, h), dtype).transpose(0, 2, 1, 3)


def _row_dots(a, b):
    """Σ a ⊙ b over the last axis, which stays; on the host without an array for a ⊙ b."""
    xp = array_module(a)
    if xp is np:
        return np.einsum("...m,...m->...", a, b)[..., None]
    return (a * b).sum(axis=-1, keepdims=True)


def _softmax_in_place(scores):
    """Softmax over the last axis in which a row of nothing but -inf gives zeros, not NaN.

    In place: each of its passes over n² numbers is worth as much as a matrix product of one head.
    """
    xp = array_module(scores)
    if scores.shape[-1] == 0:
        return scores
    top = scores.max(axis=-1, keepdims=True)
    scores -= xp.where(top == -xp.inf, 0, top)
    xp.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    scores /= xp.where(total == 0, 1, total)
    return scores


def _without_padding(x, mask):
    """Zeros at masked keys, since a weight of zero times NaN would still be NaN."""
    return x if mask is None else array_module(x).where(mask[:, None, :, None], x, 0)


def _visible(xp, mask, causal, n, m, first_query=0, first_key=0, offset=None):
    """Which key each query may see: bool that broadcasts to (B, H, n, m), or None for all.

    Query i stands at token i + offset; by default the queries are the last of the keys' tokens.
    """
    visible = None if mask is None else mask[:, None, None, :]
    if causal:
        offset = _offset(causal, n, m) if offset is None else offset
        token = first_query + offset + xp.arange(n)
        past = first_key + xp.arange(m) <= token[:, None]
        visible = past if visible is None else visible & past
    return visible


def _offset(causal, n, m):
    """At which of m tokens the first of n queries stands."""
    if causal and m < n:
        raise ValueError("causal attention needs at least as many keys as queries")
    return m - n


def attention_blocked(q, k, v, mask=None, causal=False, block=512):
    """y = softmax(q @ k.T / √h) @ v, as `attention`, in memory linear in n.

    Arguments and shapes as there; block, how many queries and keys meet at a time: only their
    weights exist.

    A softmax can be taken over blocks of keys in turn. Keep each query's largest score `top` and
    the sum `total` of exp(score - top); when a block brings a larger score, scale what was added
    so far by exp(old top - new top). Milakov and Gimelshein 2018; Rabe and Staats 2021.

    Backward makes each block's p again as exp(scores - L), where L = top + log(total) is the
    logarithm of the softmax's denominator. Its inner sum needs no second sweep over the keys:
    Σ_keys dp ⊙ p = Σ_e dy ⊙ y, one number a query (Dao et al. 2022, appendix B.2). Each block then
    adds its part to dq, dk and dv, which are those of `attention`.

    Saved: q / √h, k, v, mask, y, and L (one number a query and head).
    """
    xp = array_module(q)
    k, v = _without_padding(k, mask), _without_padding(v, mask)
    n, m = q.shape[2], k.shape[2]
    scale = 1 / math.sqrt(q.shape[-1])
    offset = _offset(causal, n, m)

    def key_blocks(queries):
        """Slices of keys that some query of the block may see."""
        last = queries.stop + m - n if causal else m
        return [slice(j, min(j + block, m)) for j in range(0, last, block)]

    scaled = q * scale

    def scores_of(queries, keys):
        """Of a block; -inf where a key may not be seen. An array that may be written to."""
        scores = matmul(scaled[:, :, queries], k[:, :, keys].swapaxes(-1, -2))
        visible = _visible(
            xp,
            None if mask is None else mask[:, keys],
            causal,
            queries.stop - queries.start,
            keys.stop - keys.start,
            queries.start,
            keys.start,
            offset=offset,
        )
        return scores if visible is None else xp.where(visible, scores, -xp.inf)

    query_blocks = [slice(i, min(i + block, n)) for i in range(0, n, block)]
    y = xp.zeros((*q.shape[:3], v.shape[-1]), q.dtype)
    L = xp.zeros((*q.shape[:3], 1), q.dtype)

    for queries in query_blocks:
        top, total, weighted = -xp.inf, 0.0, 0.0
        for keys in key_blocks(queries):
            weights = scores_of(queries, keys)
            new_top = xp.maximum(top, weights.max(axis=-1, keepdims=True))
            shift = xp.where(new_top == -xp.inf, 0, new_top)
            weights -= shift
            xp.exp(weights, out=weights)
            rescale = xp.exp(top - shift)
            total = total * rescale + weights.sum(axis=-1, keepdims=True)
            seen = matmul(weights, v[:, :, keys])
            weighted = weighted * rescale + seen
            top = new_top
        nothing_seen = total == 0
        total = xp.where(nothing_seen, 1, total)
        y[:, :, queries] = weighted / total
        L[:, :, queries] = xp.where(nothing_seen, 0, top) + xp.log(total)

    def back(dy):
        dq, dk, dv = xp.zeros_like(scaled), xp.zeros_like(k), xp.zeros_like(v)
        inner = (dy * y).sum(axis=-1, keepdims=True)
        for queries in query_blocks:
            for keys in key_blocks(queries):
                p = scores_of(queries, keys)
                p -= L[:, :, queries]
                xp.exp(p, out=p)
                ds = matmul(dy[:, :, queries], v[:, :, keys].swapaxes(-1, -2))
                ds -= inner[:, :, queries]
                ds *= p
                dv[:, :, keys] += matmul(p.swapaxes(-1, -2), dy[:, :, queries])
                dq[:, :, queries] += matmul(ds, k[:, :, keys])
                dk[:, :, keys] += matmul(ds.swapaxes(-1, -2), scaled[:, :, queries])
        return dq * scale, dk, dv, None

    return y, back
