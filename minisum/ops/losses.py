"""How wrong the model is, as one number, and the gradient that starts every backward pass.

Each loss is a sum over the targets that count, divided by the plain number `total`: by default
how many they are. A shard of a batch passes the whole batch's number instead, so that the losses
(and gradients) of the shards simply add up.
"""

from minisum.backend import array_module
from minisum.fast import cuda as kernels


def cross_entropy(logits, targets, ignore=-1, total=None):
    """loss = Σ -log softmax(logits)[target] / total.   logits (..., C), targets (...) integer -> ()

    Rows whose target is `ignore` count for nothing; if none are left the loss is 0.

    The log of a softmax has a famously simple derivative: dlogits = (p - onehot(target)) / total,
    p the softmax, and 0 in ignored rows.

    Saved: p, the targets, and which of them count.
    """
    xp = array_module(logits)
    if kernels.runs_on(logits):
        return _cross_entropy_fused(logits, targets, ignore, total)
    counted = targets != ignore
    chosen = xp.where(counted, targets, 0)[..., None]
    if total is None:
        total = xp.maximum(counted.sum(dtype=logits.dtype), 1)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    p = xp.exp(shifted)
    partition = p.sum(axis=-1, keepdims=True)
    p /= partition
    surprise = xp.log(partition) - xp.take_along_axis(shifted, chosen, axis=-1)
    loss = xp.where(counted, surprise[..., 0], 0).sum() / total

    def back(dloss):
        classes = xp.arange(p.shape[-1])
        dlogits = (p - (classes == chosen)) * (dloss / total)
        return xp.where(counted[..., None], dlogits, 0), None

    return loss, back


def _cross_entropy_fused(logits, targets, ignore, total):
    """`cross_entropy` in two GPU kernels, one each way."""
    rows, chosen = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).astype("int32")
    if total is None:
        total = array_module(logits).maximum((chosen != ignore).sum(dtype=logits.dtype), 1)
    p, losses = kernels.softmax_loss(rows, None, chosen, ignore)

    shape = logits.shape

    def back(dloss):
        dlogits = kernels.cross_entropy_back(p, chosen, dloss / total, ignore)
        return dlogits.reshape(shape), None

    return losses.sum() / total, back


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
