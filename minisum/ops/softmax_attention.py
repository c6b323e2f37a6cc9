"""Softmax attention: every token attends to every other, in time quadratic in n."""

import math

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.dropout import dropout


@has_fast_forms
def attention(q, k, v, mask=None, causal=False):
    """y = p @ v, p = softmax(q @ k.T / √h) over the keys that may be seen.

    q (B, H, n, h), k (B, H, m, h), v (B, H, m, e), mask (B, m) bool over keys or None ->
    y (B, H, n, e). With `causal` the queries are the last n of the m tokens, and each sees itself
    and the tokens before it. A query that may see no key gives zero and zero gradients.
    Vaswani et al. 2017, equation 1.

    y is bilinear in p and v: dv = p.T @ dy and dp = dy @ v.T. Through the softmax, whose rows sum
    to one: ds = p ⊙ (dp - Σ_keys dp ⊙ p). Then the scores' product: dq = ds @ k / √h and
    dk = ds.T @ q / √h.

    Saved: q, k, v, p (n·m numbers a head).
    """
    visible = visible_keys(array_module(q), mask, causal, q.shape[2], k.shape[2])
    return attend(q, without_padding(k, mask), without_padding(v, mask), visible)


def attend(q, k, v, visible):
    """`attention` to the keys that are visible: bool, broadcast to (B, H, n, m), or None for all.

    back(dy) -> dq, dk, dv, None for the mask.
    """
    xp, scale = array_module(q), 1 / math.sqrt(q.shape[-1])
    scores = q @ k.swapaxes(-1, -2) * scale  # (B, H, n, m)
    p = softmax(scores if visible is None else xp.where(visible, scores, -xp.inf))

    def back(dy):
        dp = dy @ v.swapaxes(-1, -2)
        ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
        dk = ds.swapaxes(-1, -2) @ q * scale
        return ds @ k * scale, dk, p.swapaxes(-1, -2) @ dy, None

    return p @ v, back


def attention_with_dropout(q, k, v, keep, mask=None, rate=0.0, causal=False):
    """y = dropout(p) @ v, p as in `attention`: some of each query's attention weights are dropped.

    keep (B, H, n, m) bool, as in `dropout`; the others as in `attention` -> y (B, H, n, e). A row
    of dropout(p) sums to one only on average (Vaswani et al. 2017, as in
    torch.nn.MultiheadAttention).

    With r = p / (1 - rate) where `keep`, else 0: dv = r.T @ dy, and dr = dy @ v.T, scaled and
    masked in the same way, is dp. From there dq and dk are those of `attention`.

    Saved: q, k, v, p, r, keep.
    """
    xp, scale = array_module(q), 1 / math.sqrt(q.shape[-1])
    k, v = without_padding(k, mask), without_padding(v, mask)
    scores = q @ k.swapaxes(-1, -2) * scale  # (B, H, n, m)
    visible = visible_keys(xp, mask, causal, q.shape[2], k.shape[2])
    p = softmax(scores if visible is None else xp.where(visible, scores, -xp.inf))
    r, back_dropout = dropout(p, keep, rate)

    def back(dy):
        dp, _ = back_dropout(dy @ v.swapaxes(-1, -2))
        ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
        dk = ds.swapaxes(-1, -2) @ q * scale
        return ds @ k * scale, dk, r.swapaxes(-1, -2) @ dy, None, None

    return r @ v, back


def softmax(scores):
    """Softmax over the last axis; a row of nothing but -inf gives zeros, not NaN."""
    xp = array_module(scores)
    if scores.shape[-1] == 0:
        return scores
    top = scores.max(axis=-1, keepdims=True)
    weights = xp.exp(scores - xp.where(top == -xp.inf, 0, top))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / xp.where(total == 0, 1, total)


def without_padding(x, mask):
    """Zeros at masked keys, since a weight of zero times NaN would still be NaN."""
    return x if mask is None else array_module(x).where(mask[:, None, :, None], x, 0)


def visible_keys(xp, mask, causal, n, m):
    """Which of m keys each of n queries may see: bool that broadcasts to (B, H, n, m), or None."""
    visible = None if mask is None else mask[:, None, None, :]
    if causal:
        past = xp.arange(m) <= first_query(n, m) + xp.arange(n)[:, None]
        visible = past if visible is None else visible & past
    return visible


def first_query(n, m):
    """The index among m tokens of the first of n queries, in causal attention."""
    if m < n:
        raise ValueError("causal attention needs at least as many keys as queries")
    return m - n


def split_heads(x, heads):
    """y[b, i, t, j] = x[b, t, i h + j]: the width cut into heads.   x (B, n, H·h) -> y (B, H, n, h)

    A permutation of entries, so the gradient is its inverse: dx = merge_heads(dy).

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
