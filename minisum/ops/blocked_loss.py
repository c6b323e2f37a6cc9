"""The last layer of a language model and its loss in one go, a block of tokens at a time.

A vocabulary is large: the scores of all B·n tokens would be by far the largest array of a model,
32 times its activations at width 256 and 8,192 words. They are needed only for one number a token,
so they are made for a block of tokens, used, and forgotten.
"""

import numpy as np

from minisum.backend import array_module
from minisum.fast import cuda as kernels
from minisum.fast.cuda.recording import matmul

# Tokens a block. With fewer, the V·d gradient of W is walked over once more for each block.
BLOCK = 256
# Scores that are worked on at a time on the host: 1 MB in float32, to stay in the cache.
CACHED = 2**18
# Scores at a time on a GPU: 128 MB in float32, so that its products are large.
ON_DEVICE = 2**25


def linear_cross_entropy(x, W, b, targets, ignore=-1, total=None, block=BLOCK):
    """loss = Σ -log softmax(x @ W.T + b)[target] / total, without holding all scores.

    x (..., d), W (V, d), b (V) or None, targets (...) integer -> (). Rows whose target is `ignore`
    count for nothing. The plain form is `linear` followed by `cross_entropy`.

    The loss is one number, so its gradient is known but for the factor dloss as soon as the
    softmax p of a block is: dscores = (p - onehot(target)) / total, and from there as in `linear`
    dx = dscores @ W, dW = dscores.T @ x, db = Σ dscores. They are taken while the block's scores
    exist, since to make these again in the backward pass would cost another product with W.

    Saved: dx, dW, db for dloss = 1.
    """
    xp = array_module(x)
    rows, flat = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    counted = flat != ignore
    if total is None:
        total = xp.maximum(counted.sum(dtype=x.dtype), 1)
    if kernels.runs_on(x, W, b):
        loss, dx, dW, db = _fused(rows, W, b, flat.astype("int32"), ignore, total)
        return loss / total, _scaled(dx.reshape(x.shape), dW, db)
    loss = xp.zeros((), x.dtype)
    dx, dW = _unfilled(rows, W)
    db = None if b is None else xp.zeros_like(b)

    for start in range(0, len(rows), block):
        piece = slice(start, start + block)
        read, real, chosen = _block(rows[piece], flat[piece], counted[piece])
        scores = matmul(read, W.T)
        for few in _few(scores):
            partition, surprise = _exponentials(scores[few], b, chosen[few])
            loss += xp.where(real[few], surprise, 0).sum()
            dscores = scores[few]  # a view: the scores turn into their gradient in place
            dscores *= xp.where(real[few], 1 / (partition * total), 0)
            own = (xp.arange(len(dscores)), chosen[few][:, 0])
            dscores[own] -= xp.where(real[few][:, 0], 1 / total, 0).astype(x.dtype)
            if b is not None:
                db += dscores.sum(axis=0)
        _back_through(scores, read, W, piece, dx, dW)
    return loss / total, _scaled(dx.reshape(x.shape), dW, db)


def _unfilled(rows, W):
    """Places for dx and dW. The first block writes all of dW, but without rows there is none."""
    xp = array_module(W)
    return xp.empty_like(rows), xp.empty_like(W) if len(rows) else xp.zeros_like(W)


def _back_through(dscores, read, W, piece, dx, dW):
    """What a block's scores pass back: its rows of dx, and to dW, first written and then added."""
    dx[piece] = matmul(dscores, W)
    if piece.start == 0:
        matmul(dscores.T, read, out=dW)
    else:
        dW += matmul(dscores.T, read)


def _scaled(dx, dW, db):
    """The backward pass, when the gradients for dloss = 1 are known."""

    def back(dloss):
        if isinstance(dloss, float) and dloss == 1:  # spares a walk over all of dW
            return dx, dW, db, None
        return dx * dloss, dW * dloss, None if db is None else db * dloss, None

    return back


def _fused(rows, W, b, targets, ignore, total):
    """Σ -log softmax, dx, dW and db of `linear_cross_entropy` in a few GPU kernels a block."""
    xp = array_module(rows)
    loss, (dx, dW) = xp.zeros((), rows.dtype), _unfilled(rows, W)
    db = None if b is None else xp.zeros_like(b)
    block = max(1, ON_DEVICE // len(W))
    for start in range(0, len(rows), block):
        piece = slice(start, start + block)
        chosen = targets[piece]
        read = xp.where((chosen != ignore)[:, None], rows[piece], 0)
        scores = matmul(read, W.T)
        p, losses = kernels.softmax_loss(scores, b, chosen, ignore, in_place=True)
        loss += losses.sum()
        dscores = kernels.cross_entropy_back(p, chosen, 1 / total, ignore, in_place=True)
        _back_through(dscores, read, W, piece, dx, dW)
        if b is not None:
            db += kernels.sum_rows(dscores)
    return loss, dx, dW, db


def score_targets(x, W, b, targets, ignore=-1, block=BLOCK):
    """How each target fared: (..., 2), its surprise in nats, and 1 where its score was the highest.

    Arguments as for `linear_cross_entropy`; both numbers are 0 where the target is `ignore`. No
    gradient.
    """
    xp = array_module(x)
    rows, flat = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    counted = flat != ignore
    block = block if xp is np else max(block, ON_DEVICE // len(W))
    scored = xp.zeros((len(rows), 2), x.dtype)
    for start in range(0, len(rows), block):
        piece = slice(start, start + block)
        read, real, chosen = _block(rows[piece], flat[piece], counted[piece])
        scores = matmul(read, W.T)
        for few in _few(scores):
            _, surprise = _exponentials(scores[few], b, chosen[few])
            hit = scores[few].argmax(axis=-1)[:, None] == chosen[few]
            found = xp.where(real[few], xp.concatenate([surprise, hit], axis=1), 0)
            scored[start + few.start : start + few.stop] = found
    return scored.reshape(*targets.shape, 2)


def _block(rows, targets, counted):
    """A block's rows, counted (r, 1) and targets (r, 1), the first and last 0 if not counted."""
    xp = array_module(rows)
    real = counted[:, None]
    return xp.where(real, rows, 0), real, xp.where(real, targets[:, None], 0)


def _few(scores):
    """Slices of a few rows each: all at once on a GPU."""
    count, words = scores.shape
    step = max(1, CACHED // words) if array_module(scores) is np else max(1, count)
    return [slice(i, min(i + step, count)) for i in range(0, count, step)]


def _exponentials(scores, b, chosen):
    """scores (r, V) become e^(score + b - top) in place; their sums and -log softmax[chosen]."""
    xp = array_module(scores)
    if b is not None:
        scores += b
    scores -= scores.max(axis=-1, keepdims=True)
    own = xp.take_along_axis(scores, chosen, axis=-1)
    xp.exp(scores, out=scores)
    partition = scores.sum(axis=-1, keepdims=True)
    return partition, xp.log(partition) - own
