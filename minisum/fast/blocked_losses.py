"""The last layer of a language model and its loss in one go, a block of tokens at a time.

The scores of all B·n tokens would be by far the largest array of a model, 32 times its activations
at width 256 and 8,192 words. They are made for a block of tokens, used, and forgotten.
"""

import numpy as np

from minisum.backend import array_module
from minisum.fast import one_real_type
from minisum.fast.cuda import compiling
from minisum.fast.cuda import losses as cuda_losses
from minisum.fast.cuda.precision import factor
from minisum.fast.cuda.recording import matmul
from minisum.ops import losses

# Tokens a block. With fewer, the V·d gradient of W is walked over once more for each block.
BLOCK = 256
# Scores that are worked on at a time: 1 MB in float32, to stay in the cache.
CACHED = 2**18


def linear_cross_entropy(x, W, b, targets, ignore=-1, total=None):
    """`minisum.ops.linear_cross_entropy`, its gradient taken on the way forward.

    The loss is one number, so its gradient is known but for the factor dloss as soon as the
    softmax p of a block is: dscores = (p - onehot(target)) / total, and from there as in `linear`
    dx = dscores @ W, dW = dscores.T @ x, db = Σ dscores. They are taken while the block's scores
    exist, since to make these again in the backward pass would cost another product with W.

    Saved: dx, dW, db for dloss = 1.
    """
    on_host = array_module(x) is np
    if not (one_real_type(x, W, b) if on_host else compiling.runs_on(x, W, b)):
        return NotImplemented
    loss_and_dscores = _loss_and_dscores if on_host else cuda_losses.loss_and_dscores
    round_factor = np.asarray if on_host else factor
    size = BLOCK if on_host else max(1, cuda_losses.CACHED // len(W))
    xp, rows, targets = array_module(x), x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    counted = targets != ignore
    if total is None:
        total = xp.maximum(counted.sum(dtype=x.dtype), 1)
    loss, dx, weights = xp.zeros((), x.dtype), xp.empty_like(rows), round_factor(W)
    dW, db = xp.zeros_like(W), None if b is None else xp.zeros_like(b)
    for start in range(0, len(rows), size):
        block = slice(start, start + size)
        read = round_factor(xp.where(counted[block, None], rows[block], 0))
        scores = matmul(read, weights.T)
        more, dscores = loss_and_dscores(scores, b, targets[block], ignore, total)
        loss += more
        matmul(dscores, weights, out=dx[block])
        matmul(dscores.T, read, out=dW, add=True)
        if b is not None:
            db += matmul(xp.ones((1, len(dscores)), x.dtype), dscores)[0]
    dx = dx.reshape(x.shape)

    def back(dloss):
        if isinstance(dloss, float) and dloss == 1:  # spares a walk over all of dW
            return dx, dW, db, None
        return dx * dloss, dW * dloss, None if db is None else db * dloss, None

    return loss / total, back


def _loss_and_dscores(scores, b, targets, ignore, total):
    """Σ -log softmax(scores + b)[target] over targets that count; dscores in the scores' place.

    scores (r, V), targets (r). A few rows at a time, in the cache.
    """
    loss, few = 0, max(1, CACHED // scores.shape[1])
    for start in range(0, len(scores), few):
        some, chosen = scores[start : start + few], targets[start : start + few, None]
        real = chosen != ignore
        chosen = np.where(real, chosen, 0)
        if b is not None:
            some += b
        some -= some.max(axis=-1, keepdims=True)
        own_scores = np.take_along_axis(some, chosen, axis=-1)
        np.exp(some, out=some)
        partition = some.sum(axis=-1, keepdims=True)
        loss += np.where(real, np.log(partition) - own_scores, 0).sum()
        some *= np.where(real, 1 / (partition * total), 0)
        own = np.arange(len(some)), chosen[:, 0]
        some[own] -= np.where(real[:, 0], 1 / total, 0).astype(some.dtype)
    return loss, scores


def score_targets(x, W, b, targets, ignore=-1):
    """The textbook form, a block at a time."""
    on_host = array_module(x) is np
    if not (one_real_type(x, W, b) if on_host else compiling.runs_on(x, W, b)):
        return NotImplemented
    size = BLOCK if on_host else max(1, cuda_losses.CACHED // len(W))
    rows, flat = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    scored = array_module(x).zeros((len(rows), 2), x.dtype)
    for i in range(0, len(rows), size):
        some = slice(i, i + size)
        scored[some] = losses.score_targets.plain(rows[some], W, b, flat[some], ignore)
    return scored.reshape(*targets.shape, 2)
