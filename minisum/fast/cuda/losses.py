"""Losses over large vocabularies: softmax and its gradient in one kernel each, in large blocks."""

from minisum.backend import array_module
from minisum.fast.cuda import compiling
from minisum.fast.cuda.linear import sum_rows
from minisum.fast.cuda.recording import matmul
from minisum.fast.cuda.softmax import cross_entropy_back, softmax_loss
from minisum.fast.host_losses import scaled_back
from minisum.ops import losses

# Scores at a time: 128 MB in float32, so that the products are large.
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


def linear_cross_entropy(x, W, b, targets, ignore=-1, total=None):
    """As on the host: the gradient is taken on the way forward.

    Saved: dx, dW, db for dloss = 1.
    """
    if not compiling.runs_on(x, W, b):
        return NotImplemented
    xp, rows, targets = array_module(x), x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    targets = targets.astype("int32")
    if total is None:
        total = xp.maximum((targets != ignore).sum(dtype=x.dtype), 1)
    loss, dx = xp.zeros((), x.dtype), xp.empty_like(rows)
    dW = xp.empty_like(W) if len(rows) else xp.zeros_like(W)
    db = None if b is None else xp.zeros_like(b)
    for block in _blocks(rows, W):
        chosen = targets[block]
        read = xp.where((chosen != ignore)[:, None], rows[block], 0)
        scores = matmul(read, W.T)
        p, nll = softmax_loss(scores, b, chosen, ignore, in_place=True)
        loss += nll.sum()
        dscores = cross_entropy_back(p, chosen, 1 / total, ignore, in_place=True)
        dx[block] = matmul(dscores, W)
        if block.start == 0:
            matmul(dscores.T, read, out=dW)
        else:
            dW += matmul(dscores.T, read)
        if b is not None:
            db += sum_rows(dscores)
    return loss / total, scaled_back(dx.reshape(x.shape), dW, db)


def score_targets(x, W, b, targets, ignore=-1):
    """The textbook form, a block at a time."""
    if not compiling.runs_on(x, W, b):
        return NotImplemented
    rows, flat = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    scored = array_module(x).zeros((len(rows), 2), x.dtype)
    for block in _blocks(rows, W):
        scored[block] = losses.score_targets.plain(rows[block], W, b, flat[block], ignore)
    return scored.reshape(*targets.shape, 2)


def _blocks(rows, W):
    size = max(1, CACHED // len(W))
    return [slice(start, start + size) for start in range(0, len(rows), size)]
