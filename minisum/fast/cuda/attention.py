"""Attention: fused where there are kernels for it, else products and one kernel each way between.

The products are of many heads at a time.
"""

import math

from minisum.fast.blocked_attention import attention_in_blocks
from minisum.fast.cuda import compiling, fused_attention, softmax

# Weights that are worked on at a time: 32 MB in float32, which the second-level cache holds.
CACHED = 2**23
# Where fewer heads fit, one alone is faster: cuBLAS shares out a single product's long sums over
# the keys, as in p @ v, over the whole device, and those of several products it does not. Fewer
# queries at a time would read the keys of a long text too often.
LEAST_HEADS, LEAST_QUERIES = 4, 128


def attention(q, k, v, mask=None, causal=False):
    """Saved: q, k, v, mask, and p where no more than CACHED weights are."""
    if not compiling.runs_on(q, k, v):
        return NotImplemented
    if fused_attention.takes(q, k, v):
        return fused_attention.fused_attention(q, k, v, mask, causal)
    keep = math.prod(q.shape[:3]) * k.shape[2] <= CACHED
    kernels = softmax.attention_weights, softmax.attention_weights_back
    sizes, scale = (CACHED, LEAST_HEADS, LEAST_QUERIES), 1 / math.sqrt(q.shape[3])
    q, k, v = compiling.contiguous(q, k, v)  # every block of them is without gaps then
    y, back_blocks = attention_in_blocks(q, k, v, mask, causal, scale, keep, sizes, *kernels)
    return y, lambda dy: back_blocks(*compiling.contiguous(dy))
