"""`window_attention` in blocks of the window's length: a block of queries sees two of keys."""

import math

import numpy as np

from minisum.backend import add_into, array_module
from minisum.fast import one_real_type
from minisum.fast.cuda.recording import matmul
from minisum.ops.products import transposed
from minisum.ops.softmax_attention import first_query, softmax, without_padding

# How many windows a text must be longer than for this form to be taken.
LEAST_WINDOWS = 2


def window_attention(q, k, v, mask=None, window=64, causal=False):
    """`minisum.ops.window_attention` for longer texts, in time O(n w (h + e)).

    The queries are cut into blocks of w = `window`. If causal, block c sees the w keys before it
    and its own, side by side: 2 w scores a query, of which w are in the window. Backward, a block
    of keys adds up what it got from its own queries and from those of the next block.

    Saved: q and k, v with w keys before them, in blocks; p (2 w numbers a query and head, or w).
    """
    n, m, w = q.shape[2], k.shape[2], window
    xp, scale = array_module(q), 1 / math.sqrt(q.shape[-1])
    # A GPU's work can be recorded in this form alone, so texts as a whole always take it there.
    short = m <= LEAST_WINDOWS * w and (xp is np or n < m)
    if not one_real_type(q, k, v) or short or not m:
        return NotImplemented
    k, v = without_padding(k, mask), without_padding(v, mask)
    real = xp.ones((1, m), bool) if mask is None else mask
    N = -(-n // w)
    # Keys are needed from w before the first query on: `skip` are older, or -skip are missing.
    skip = first_query(n, m) - w if causal else 0
    Q = _blocks(q, w, 0, N)
    K, V, seen = (_blocks(a, w, skip, N + causal) for a in (k, v, real[:, None, :, None]))
    if causal:
        K, V, seen = _pairs(K), _pairs(V), _pairs(seen)
    visible = transposed(seen)
    if causal:
        i, j = xp.arange(w)[:, None] + w, xp.arange(2 * w)
        visible = visible & (j <= i) & (j > i - w)
    p = softmax(xp.where(visible, matmul(Q, transposed(K)) * scale, -xp.inf))

    def back(dy):
        dY = _blocks(dy, w, 0, N)
        dp = matmul(dY, transposed(V))
        ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) * scale
        dK, dV = matmul(transposed(ds), Q), matmul(transposed(p), dY)
        if causal:
            dK, dV = _add_pairs(dK), _add_pairs(dV)
        dk, dv = _tokens(dK, skip, m), _tokens(dV, skip, m)
        return _tokens(matmul(ds, K), 0, n), dk, dv, None

    return _tokens(matmul(p, V), 0, n), back


def _blocks(x, w, skip, N):
    """x (B, H, n, e) from token `skip` on, N blocks (B, H, N, w, e); zeros where x has no token."""
    B, H, _, e = x.shape
    blocks = array_module(x).zeros((B, H, N * w, e), x.dtype)
    part = x[:, :, max(skip, 0) :]
    blocks[:, :, max(-skip, 0) :][:, :, : part.shape[2]] = part
    return blocks.reshape(B, H, N, w, e)


def _tokens(blocks, skip, n):
    """The adjoint of `_blocks`: (B, H, N, w, e) -> (B, H, n, e)."""
    B, H, N, w, e = blocks.shape
    part = blocks.reshape(B, H, N * w, e)[:, :, max(-skip, 0) :]
    x = array_module(blocks).zeros((B, H, n, e), blocks.dtype)
    place = x[:, :, max(skip, 0) :]
    place[...] = part[:, :, : place.shape[2]]
    return x


def _pairs(blocks):
    """Each block after the one before it: (.., N + 1, w, e) -> (.., N, 2 w, e)."""
    return array_module(blocks).concatenate([blocks[:, :, :-1], blocks[:, :, 1:]], axis=-2)


def _add_pairs(pairs):
    """The adjoint of `_pairs`."""
    B, H, N, w, e = pairs.shape
    blocks = array_module(pairs).zeros((B, H, N + 1, w // 2, e), pairs.dtype)
    blocks[:, :, :-1] = pairs[..., : w // 2, :]
    add_into(blocks[:, :, 1:], pairs[..., w // 2 :, :])
    return blocks
