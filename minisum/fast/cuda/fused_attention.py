"""Attention whose weights are never in memory: three kernels on tensor cores (attention.cu)."""

import math

from minisum.backend import array_module
from minisum.fast.cuda import precision
from minisum.fast.cuda.compiling import contiguous, launch
from minisum.ops.softmax_attention import first_query

# Queries, or keys, of a block of threads; widths of a head that the kernels are made for.
ROWS, WIDTHS = 64, (32, 64, 128)
MOST_TEXTS = 65535  # blocks along a grid's third axis


def takes(q, k, v):
    """Whether these kernels can: products in tf32 or bf16, heads of a multiple of eight."""
    h, chosen = q.shape[3], precision.chosen != "float32" and q.dtype.char == "f"
    fits = v.shape[3] == h and h % 8 == 0 and 0 < h <= WIDTHS[-1] and len(q) <= MOST_TEXTS
    return chosen and fits


def fused_attention(q, k, v, mask, causal):
    """`minisum.ops.attention` by the running softmax of Dao 2023, "FlashAttention-2".

    Forward keeps of each query log Σ exp(q·k / √h), from which backward makes the weights p of a
    tile again; Σ_keys dp ⊙ p is dy·y. Queries walk over keys for dq, and keys over queries for dk
    and dv, so that nothing is added by several blocks and the same input gives the same bits.

    Saved: q, k, v, mask, y, the logarithms.
    """
    xp, (B, H, n, h), m = array_module(q), q.shape, k.shape[2]
    if causal:
        first_query(n, m)
    q, k, v, (mask,) = *map(_by_tokens, (q, k, v)), contiguous(mask)
    width = next(width for width in WIDTHS if h <= width)
    kernels = {"pack": f"{width}, {int(precision.chosen == 'bf16')}"}
    sizes = 1 / math.sqrt(h), int(causal), H, n, m, h
    over_queries, over_keys = ((-(-tokens // ROWS), H, B) for tokens in (n, m))
    y, logs = xp.empty_like(q), xp.empty((B, H, n), q.dtype)
    arrays = q, k, v, mask
    launch("attention.attention_forward", over_queries, (128,), *arrays, y, logs, *sizes, **kernels)

    def back(dy):
        dy, inner = _by_tokens(dy), xp.empty_like(logs)
        dq, dk, dv = (xp.empty_like(x) for x in (q, k, v))
        to = y, dy, logs, inner, dq
        launch("attention.attention_dq", over_queries, (128,), *arrays, *to, *sizes, **kernels)
        to = dy, logs, inner, dk, dv
        launch("attention.attention_dkv", over_keys, (128,), *arrays, *to, *sizes, **kernels)
        return *(x.transpose(0, 2, 1, 3) for x in (dq, dk, dv)), None

    return y.transpose(0, 2, 1, 3), back


def _by_tokens(x):
    """x (B, H, n, h) as (B, n, H, h) without gaps, from a place that four numbers divide."""
    (x,) = contiguous(x.transpose(0, 2, 1, 3))
    return x.copy() if x.data.ptr % 16 else x
