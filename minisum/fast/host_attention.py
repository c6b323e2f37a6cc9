"""Attention in place: a pass over its n² weights costs as much as a matrix product of one head."""

import math

import numpy as np

from minisum.fast import one_real_type
from minisum.ops.softmax_attention import visible_keys, without_padding


def attention(q, k, v, mask=None, causal=False):
    if not one_real_type(q, k, v) or not k.shape[2]:
        return NotImplemented
    scale = 1 / math.sqrt(q.shape[-1])
    k, v = without_padding(k, mask), without_padding(v, mask)
    p = (q * scale) @ k.swapaxes(-1, -2)
    visible = visible_keys(np, mask, causal, q.shape[2], k.shape[2])
    if visible is not None:
        p = np.where(visible, p, -np.inf)
    top = p.max(axis=-1, keepdims=True)
    p -= np.where(top == -np.inf, 0, top)
    np.exp(p, out=p)
    total = p.sum(axis=-1, keepdims=True)
    p /= np.where(total == 0, 1, total)

    def back(dy):
        ds = dy @ v.swapaxes(-1, -2)
        ds -= np.einsum("...m,...m->...", ds, p)[..., None]
        ds *= p
        return ds @ k * scale, ds.swapaxes(-1, -2) @ (q * scale), p.swapaxes(-1, -2) @ dy, None

    return p @ v, back
