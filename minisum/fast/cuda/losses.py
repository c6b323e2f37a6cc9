"""Losses over large vocabularies: softmax and its gradient in a kernel or two, in large blocks."""

from minisum.backend import array_module
from minisum.fast.cuda import compiling, precision, softmax

# Scores of a block: 128 MB in float32, so that the products are large.
CACHED = 2**25


def cross_entropy(logits, targets, ignore=-1, total=None):
    """One kernel, and a product backward.

    Saved: softmax - onehot(target).
    """
    if not compiling.runs_on(logits):
        return NotImplemented
    xp, shape = array_module(logits), logits.shape
    rows, chosen = logits.reshape(-1, shape[-1]), targets.reshape(-1).astype("int32")
    if total is None:
        total = xp.maximum((chosen != ignore).sum(dtype=logits.dtype), 1)
    d = xp.empty(rows.shape, rows.dtype)
    nll, d = softmax.loss_and_dscores(rows, None, chosen, ignore, 1.0, d)

    def back(dloss):
        return (d * (dloss / total)).reshape(shape), None

    return nll.sum() / total, back


def loss_and_dscores(scores, b, targets, ignore, total):
    """As in `minisum.fast.blocked_losses`, but that in bf16 dscores are rounded."""
    rounded = precision.chosen == "bf16" and scores.dtype.char == "f"
    to = array_module(scores).empty(scores.shape, "uint16") if rounded else scores
    arguments = scores, b, targets.astype("int32"), ignore, 1 / total, to
    nll, dscores = softmax.loss_and_dscores(*arguments)
    return nll.sum(), dscores
