"""Attention in place, in the cache: a pass over n² weights costs as much as a head's product."""

import math

import numpy as np

from minisum.fast import one_real_type
from minisum.fast.blocked_attention import attention_in_blocks
from minisum.ops.softmax_attention import visible_keys

# Weights that are worked on at a time: 2 MB in float32; and queries, of which fewer would read the
# keys of a long text too often.
CACHED, LEAST_QUERIES = 2**19, 256
# The number of keys from which on no weights are kept for the way back.
LEAST_KEYS = 2048


def attention(q, k, v, mask=None, causal=False):
    """Saved: q / √h, k, v, mask, and p below LEAST_KEYS keys."""
    if not one_real_type(q, k, v) or not k.shape[2]:
        return NotImplemented
    keep, scale = k.shape[2] < LEAST_KEYS, 1 / math.sqrt(q.shape[3])
    sizes, passes = (CACHED, 1, LEAST_QUERIES), (_weights, _weights_back)
    y, back_blocks = attention_in_blocks(q * scale, k, v, mask, causal, 1.0, keep, sizes, *passes)

    def back(dy):
        dq, dk, dv, _ = back_blocks(dy)
        return dq * scale, dk, dv, None

    return y, back


def _weights(scores, mask, causal, scale):
    """The softmax of scores (B, H, n, m), their place; the scale is in them already."""
    visible = visible_keys(np, mask, causal, *scores.shape[2:])
    if visible is not None:
        scores = np.where(visible, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    scores -= np.where(top == -np.inf, 0, top)
    np.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    scores *= 1 / np.where(total == 0, 1, total)
    return scores


def _weights_back(dp, p, scale):
    dp -= np.einsum("...m,...m->...", dp, p)[..., None]
    dp *= p
    return dp
