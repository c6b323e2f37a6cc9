"""Attention of long texts in memory linear in n: only the weights of one block exist at a time."""

import math

import numpy as np

from minisum.fast import one_real_type
from minisum.ops.softmax_attention import first_query, without_padding

# The number of keys from which on this form is taken.
LEAST_KEYS = 2048
# How many queries and keys meet at a time.
BLOCK = 512


def attention(q, k, v, mask=None, causal=False):
    """`minisum.ops.softmax_attention` from LEAST_KEYS keys on.

    A softmax can be taken over blocks of keys in turn. Keep each query's largest score `top` and
    the sum `total` of exp(score - top); when a block brings a larger score, scale what was added
    so far by exp(old top - new top). Milakov and Gimelshein 2018; Rabe and Staats 2021.

    Backward makes each block's p again as exp(scores - L), where L = top + log(total) is the
    logarithm of the softmax's denominator. Its inner sum needs no second sweep over the keys:
    Σ_keys dp ⊙ p = Σ_e dy ⊙ y, one number a query (Dao et al. 2022, appendix B.2). Each block then
    adds its part to dq, dk and dv, which are those of `attention`.

    Saved: q / √h, k, v, mask, y, and L (one number a query and head).
    """
    n, m = q.shape[2], k.shape[2]
    if not one_real_type(q, k, v) or m < LEAST_KEYS:
        return NotImplemented
    k, v = without_padding(k, mask), without_padding(v, mask)
    first = first_query(n, m) if causal else 0
    scale = 1 / math.sqrt(q.shape[-1])
    scaled = q * scale
    query_blocks = [slice(i, min(i + BLOCK, n)) for i in range(0, n, BLOCK)]

    def key_blocks(queries):
        """Slices of keys that some query of the block may see."""
        last = queries.stop + first if causal else m
        return [slice(j, min(j + BLOCK, m)) for j in range(0, last, BLOCK)]

    def scores_of(queries, keys):
        """Of a block; -inf where a key may not be seen. A new array."""
        scores = scaled[:, :, queries] @ k[:, :, keys].swapaxes(-1, -2)
        if mask is not None:
            scores = np.where(mask[:, None, None, keys], scores, -np.inf)
        if causal:
            tokens = first + np.arange(queries.start, queries.stop)[:, None]
            scores = np.where(np.arange(keys.start, keys.stop) <= tokens, scores, -np.inf)
        return scores

    y = np.zeros((*q.shape[:3], v.shape[-1]), q.dtype)
    L = np.zeros((*q.shape[:3], 1), q.dtype)
    for queries in query_blocks:
        top, total, weighted = -np.inf, 0.0, 0.0
        for keys in key_blocks(queries):
            weights = scores_of(queries, keys)
            new_top = np.maximum(top, weights.max(axis=-1, keepdims=True))
            shift = np.where(new_top == -np.inf, 0, new_top)
            weights -= shift
            np.exp(weights, out=weights)
            rescale = np.exp(top - shift)
            total = total * rescale + weights.sum(axis=-1, keepdims=True)
            weighted = weighted * rescale + weights @ v[:, :, keys]
            top = new_top
        nothing_seen = total == 0
        total = np.where(nothing_seen, 1, total)
        y[:, :, queries] = weighted / total
        L[:, :, queries] = np.where(nothing_seen, 0, top) + np.log(total)

    def back(dy):
        dq, dk, dv = np.zeros_like(scaled), np.zeros_like(k), np.zeros_like(v)
        inner = (dy * y).sum(axis=-1, keepdims=True)
        for queries in query_blocks:
            for keys in key_blocks(queries):
                p = scores_of(queries, keys)
                p -= L[:, :, queries]
                np.exp(p, out=p)
                ds = dy[:, :, queries] @ v[:, :, keys].swapaxes(-1, -2)
                ds -= inner[:, :, queries]
                ds *= p
                dv[:, :, keys] += p.swapaxes(-1, -2) @ dy[:, :, queries]
                dq[:, :, queries] += ds @ k[:, :, keys]
                dk[:, :, keys] += ds.swapaxes(-1, -2) @ scaled[:, :, queries]
        return dq * scale, dk, dv, None

    return y, back
