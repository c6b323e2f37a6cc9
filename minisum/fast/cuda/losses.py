"""Losses over large vocabularies: softmax and its gradient in one kernel each, in large blocks."""

from minisum.backend import array_module
from minisum.fast.cuda import compiling
from minisum.fast.cuda.softmax import cross_entropy_back, softmax_loss

# Scores of a block: 128 MB in float32, so that the products are large.
CACHED = 2**25


def cross_entropy(logits, targets, ignore=-1, total=None):
    """Two kernels, one each way."""
    if not compiling.runs_on(logits):
        return NotImplemented
    rows, chosen = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).astype("int32")
    if total is None:
        total = array_module(logits).maximum((chosen != ignore).sum(dtype=logits.dtype), 1)
    p, nll = softmax_loss(rows, None, chosen, ignore)
    shape = logits.shape

    def back(dloss):
        return cross_entropy_back(p, chosen, dloss / total, ignore).reshape(shape), None

    return nll.sum() / total, back


def loss_and_dscores(scores, b, targets, ignore, total):
    """As in `minisum.fast.blocked_losses`."""
    targets = targets.astype("int32")
    p, nll = softmax_loss(scores, b, targets, ignore, in_place=True)
    cross_entropy_back(p, targets, 1 / total, ignore, in_place=True)
    return nll.sum()
