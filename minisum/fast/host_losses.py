"""The last layer of a language model and its loss in one go, a block of tokens at a time.

A vocabulary is large: the scores of all B·n tokens would be by far the largest array of a model,
32 times its activations at width 256 and 8,192 words. They are needed only for one number a token,
so they are made for a block of tokens, used, and forgotten.
"""

import numpy as np

from minisum.fast import one_real_type

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
    if not one_real_type(x, W, b):
        return NotImplemented
    rows, targets = x.reshape(-1, x.shape[-1]), targets.reshape(-1, 1)
    counted = targets != ignore
    if total is None:
        total = np.maximum(counted.sum(dtype=x.dtype), 1)
    loss, dx = np.zeros((), x.dtype), np.empty_like(rows)
    # The first block writes all of dW, but without rows there is none.
    dW = np.empty_like(W) if len(rows) else np.zeros_like(W)
    db = None if b is None else np.zeros_like(b)
    few = max(1, CACHED // len(W))
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        real = counted[block]
        read, chosen = np.where(real, rows[block], 0), np.where(real, targets[block], 0)
        scores = read @ W.T
        for i in range(0, len(scores), few):
            some = slice(i, i + few)
            partition, nll = _exponentials(scores[some], b, chosen[some])
            loss += np.where(real[some], nll, 0).sum()
            dscores = scores[some]  # a view: the scores turn into their gradient in place
            dscores *= np.where(real[some], 1 / (partition * total), 0)
            own = (np.arange(len(dscores)), chosen[some][:, 0])
            dscores[own] -= np.where(real[some][:, 0], 1 / total, 0).astype(x.dtype)
            if b is not None:
                db += dscores.sum(axis=0)
        dx[block] = scores @ W
        if start == 0:
            np.matmul(scores.T, read, out=dW)
        else:
            dW += scores.T @ read
    return loss / total, scaled_back(dx.reshape(x.shape), dW, db)


def scaled_back(dx, dW, db):
    """The backward pass, when the gradients for dloss = 1 are known."""

    def back(dloss):
        if isinstance(dloss, float) and dloss == 1:  # spares a walk over all of dW
            return dx, dW, db, None
        return dx * dloss, dW * dloss, None if db is None else db * dloss, None

    return back


def score_targets(x, W, b, targets, ignore=-1):
    if not one_real_type(x, W, b):
        return NotImplemented
    rows, flat = x.reshape(-1, x.shape[-1]), targets.reshape(-1, 1)
    scored = np.zeros((len(rows), 2), x.dtype)
    few = max(1, CACHED // len(W))
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        real = flat[block] != ignore
        scores, chosen = np.where(real, rows[block], 0) @ W.T, np.where(real, flat[block], 0)
        for i in range(0, len(scores), few):
            some = slice(i, i + few)
            _, nll = _exponentials(scores[some], b, chosen[some])
            hit = scores[some].argmax(axis=-1)[:, None] == chosen[some]
            found = np.where(real[some], np.concatenate([nll, hit], axis=1), 0)
            scored[block][some] = found
    return scored.reshape(*targets.shape, 2)


def _exponentials(scores, b, chosen):
    """scores (r, V) become e^(score + b - top) in place; their sums and -log softmax[chosen]."""
    if b is not None:
        scores += b
    scores -= scores.max(axis=-1, keepdims=True)
    own = np.take_along_axis(scores, chosen, axis=-1)
    np.exp(scores, out=scores)
    partition = scores.sum(axis=-1, keepdims=True)
    return partition, np.log(partition) - own
