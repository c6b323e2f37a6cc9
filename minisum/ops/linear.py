"""The matrix product, where almost all the arithmetic of a model is."""

from minisum.fast import cuda as kernels
from minisum.fast.cuda.recording import matmul


def linear(x, W, b=None):
    """y = x @ W.T + b.   x (..., i), W (o, i), b (o) or None -> y (..., o)

    Each y is a sum over i of x_i W_oi, so a gradient dy_o goes back along the same weights:
    dx = dy @ W. A weight met every token: dW = dy.T @ x, its sum over all leading axes, db = Σ dy.

    The leading axes are flattened first: one plain product is faster than a batch of small ones.

    Saved: x, W.
    """
    rows = x.reshape(-1, x.shape[-1])
    y = matmul(rows, W.T)
    if b is not None:
        y += b
    shape = x.shape
    has_bias = b is not None

    def back(dy):
        dy = dy.reshape(-1, W.shape[0])
        dx = matmul(dy, W).reshape(shape)
        dW = matmul(dy.T, rows)
        return (dx, dW, sum_rows(dy)) if has_bias else (dx, dW)

    return y.reshape(*shape[:-1], W.shape[0]), back


def sum_rows(x):
    """Σ over all axes but the last.   x (..., d) -> (d,)"""
    rows = x.reshape(-1, x.shape[-1])
    if kernels.runs_on(rows):
        return kernels.sum_rows(rows)
    return rows.sum(axis=0)
