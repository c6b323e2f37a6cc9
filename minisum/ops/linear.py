"""The linear layer, where almost all the arithmetic of a model is."""

from minisum.fast import has_fast_forms


@has_fast_forms
def linear(x, W, b=None):
    """y = x @ W.T + b.   x (..., i), W (o, i), b (o) or None -> y (..., o)

    y_o = Σ_i x_i W_oi, so dx_i = Σ_o dy_o W_oi, that is dx = dy @ W. All tokens share the weights,
    so their gradients are summed over the leading axes: dW = dy.T @ x, db = Σ dy.

    The leading axes are flattened first: one large product is faster than many small ones.

    Saved: x, W.
    """
    shape, has_bias = x.shape, b is not None
    rows = x.reshape(-1, shape[-1])  # (N, i)
    y = rows @ W.T  # (N, o)
    if has_bias:
        y += b

    def back(dy):
        dy = dy.reshape(-1, W.shape[0])  # (N, o)
        dx, dW = (dy @ W).reshape(shape), dy.T @ rows
        return (dx, dW, sum_leading(dy)) if has_bias else (dx, dW)

    return y.reshape(*shape[:-1], W.shape[0]), back


@has_fast_forms
def add_scaled(x, y, scale=1.0):
    """x + scale y."""
    return x + (y if scale == 1 else y * scale)


@has_fast_forms
def sum_leading(x):
    """x (.., d) summed over all axes but the last -> (d)."""
    return x.sum(axis=tuple(range(x.ndim - 1)))
