"""A short look back: each token blended with the few before it, channel by channel."""

from minisum.backend import array_module
from minisum.ops.linear import sum_leading


def causal_conv(x, w, state=None):
    """y_t = Σ_{j<c} w_{c-1-j} ⊙ x_{t-j}, zeros before the first token.

    x (B, n, d), w (c, d), oldest tap first, state the c - 1 inputs before x, (B, c - 1, d), or
    None for zeros -> y (B, n, d) and the last c - 1 inputs. Time O(n d c).

    Each tap multiplies a weight and a shifted x: dx_t = Σ_{j<c} w_{c-1-j} ⊙ dy_{t+j}, from the c
    outputs that read x_t; dstate is the same sum for the inputs before x; dw_i = Σ_{B,t} dy_t ⊙
    x_{t-(c-1)+i}.

    Saved: w, and x with what came before it.
    """
    xp = array_module(x)
    c, n = w.shape[0], x.shape[1]
    before = xp.zeros((x.shape[0], c - 1, x.shape[2]), x.dtype) if state is None else state
    seen = xp.concatenate([before, x], axis=1)  # (B, c - 1 + n, d)
    y = sum(w[i] * seen[:, i : i + n] for i in range(c))

    def back(gradients):
        dy, dlast = gradients
        dseen = xp.zeros_like(seen)
        for i in range(c):
            shifted = dseen[:, i : i + n]
            shifted += w[i] * dy
        if dlast is not None:
            rest = dseen[:, n:]
            rest += dlast
        dw = xp.stack([sum_leading(dy * seen[:, i : i + n]) for i in range(c)])
        dstate = None if state is None else dseen[:, : c - 1]
        return dseen[:, c - 1 :], dw, dstate

    return (y, seen[:, n:]), back
