"""Attention with ReLU instead of softmax: keys that do not agree with the query get weight zero."""

import math

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.softmax_attention import visible_keys, without_padding


@has_fast_forms
def rectified_attention(q, k, v, mask=None, causal=False):
    """y = a @ v, a = relu(q @ k.T / √h) at the keys that may be seen, else 0.

    q (B, H, n, h), k (B, H, m, h), v (B, H, m, e), mask (B, m) bool over keys or None ->
    y (B, H, n, e). With `causal` the queries are the last n of the m tokens. The rows of a do not
    sum to one, so y needs a norm after it. Zhang, Titov and Sennrich 2021, "Sparse attention with
    linear units", equation 6.

    dv = a.T @ dy, and through the product and relu ds = dy @ v.T where a > 0: dq = ds @ k / √h and
    dk = ds.T @ q / √h.

    Saved: q, k, v, a (n·m numbers a head).
    """
    xp, scale = array_module(q), 1 / math.sqrt(q.shape[-1])
    k, v = without_padding(k, mask), without_padding(v, mask)
    scores = q @ k.swapaxes(-1, -2) * scale  # (B, H, n, m)
    visible = visible_keys(xp, mask, causal, q.shape[2], k.shape[2])
    a = xp.maximum(scores if visible is None else xp.where(visible, scores, 0), 0)

    def back(dy):
        ds = xp.where(a > 0, dy @ v.swapaxes(-1, -2), 0)
        return ds @ k * scale, ds.swapaxes(-1, -2) @ q * scale, a.swapaxes(-1, -2) @ dy, None

    return a @ v, back
