"""The losses, and the gradients with which every backward pass starts.

Each loss is a sum over the targets that count, divided by `total`, a plain number: by default how
many they are. A shard of a batch passes the number of the whole batch instead, so that the losses
(and gradients) of the shards add up to the batch's.
"""

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.linear import linear


@has_fast_forms
def cross_entropy(logits, targets, ignore=-1, total=None):
    """loss = Σ -log softmax(logits)[target] / total.   logits (..., C), targets (...) integer -> ()

    Rows whose target is `ignore` count for nothing; if none are left the loss is 0.

    dlogits = (p - onehot(target)) / total with p the softmax, and 0 in ignored rows: the derivative
    of log Σ exp is p, and that of the target's own logit is the one-hot vector.

    Saved: p, the targets, and which of them count.
    """
    xp = array_module(logits)
    counted = targets != ignore
    chosen = xp.where(counted, targets, 0)[..., None]
    if total is None:
        total = xp.maximum(counted.sum(dtype=logits.dtype), 1)
    exponentials, partition, nll = _exponentials(logits, chosen)
    p = exponentials / partition

    def back(dloss):
        onehot = xp.arange(p.shape[-1]) == chosen
        return xp.where(counted[..., None], (p - onehot) * (dloss / total), 0), None

    return xp.where(counted, nll, 0).sum() / total, back


@has_fast_forms
def linear_cross_entropy(x, W, b, targets, ignore=-1, total=None):
    """loss = Σ -log softmax(x @ W.T + b)[target] / total: `linear`, then `cross_entropy`.

    x (..., d), W (V, d), b (V) or None, targets (...) integer -> (). Rows whose target is `ignore`
    count for nothing, whatever they hold.

    dscores as in `cross_entropy`, and from there as in `linear`: dx = dscores @ W,
    dW = dscores.T @ x, db = Σ dscores.

    Saved: x, W, the softmax of all scores, the targets, and which of them count.
    """
    x = array_module(x).where((targets != ignore)[..., None], x, 0)
    scores, back_linear = linear(x, W, b)  # (..., V)
    loss, back_loss = cross_entropy(scores, targets, ignore, total)

    def back(dloss):
        dscores, _ = back_loss(dloss)
        dx, dW, *db = back_linear(dscores)
        return dx, dW, db[0] if db else None, None

    return loss, back


@has_fast_forms
def score_targets(x, W, b, targets, ignore=-1):
    """(-log softmax(x @ W.T + b)[target], 1 if the target is the argmax, else 0).

    Arguments as for `linear_cross_entropy` -> (..., 2); both numbers are 0 where the target is
    `ignore`. No gradient.
    """
    xp = array_module(x)
    counted = (targets != ignore)[..., None]
    chosen = xp.where(counted, targets[..., None], 0)
    scores, _ = linear(xp.where(counted, x, 0), W, b)
    _, _, nll = _exponentials(scores, chosen)
    hit = scores.argmax(axis=-1) == chosen[..., 0]
    return xp.where(counted, xp.stack([nll, hit.astype(nll.dtype)], axis=-1), 0)


def _exponentials(logits, chosen):
    """exp(logits - top) (..., C), its sum (..., 1), -log softmax at `chosen` (..., 1): (...)"""
    xp = array_module(logits)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exponentials = xp.exp(shifted)
    partition = exponentials.sum(axis=-1, keepdims=True)
    nll = xp.log(partition) - xp.take_along_axis(shifted, chosen, axis=-1)
    return exponentials, partition, nll[..., 0]


def binary_cross_entropy(logits, targets, total=None):
    """loss = Σ (softplus(x) - t x) / total, that is -t log σ(x) - (1 - t) log σ(-x).

    logits x and targets t in [0, 1], both of any one shape -> (). The default total is their size.

    softplus' = σ, hence dlogits = (σ(x) - t) / total; and dtargets = -x / total.

    Saved: logits, targets.
    """
    xp = array_module(logits)
    total = logits.size if total is None else total
    small = xp.exp(-xp.abs(logits))
    softplus = xp.maximum(logits, 0) + xp.log1p(small)
    loss = (softplus - targets * logits).sum() / total

    def back(dloss):
        scale = dloss / total
        small = xp.exp(-xp.abs(logits))
        p = xp.where(logits >= 0, 1, small) / (1 + small)
        return (p - targets) * scale, -logits * scale

    return loss, back


def mean_squared_error(y, targets, total=None):
    """loss = Σ (y - targets)² / total.   y and targets of any one shape -> (). Default total: size

    dy = 2 (y - targets) / total, and dtargets = -dy.

    Saved: y - targets.
    """
    error = y - targets
    total = error.size if total is None else total
    loss = (error * error).sum() / total

    def back(dloss):
        dy = error * (2 * dloss / total)
        return dy, -dy

    return loss, back
