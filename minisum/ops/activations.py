"""Functions of one number, applied to each entry: back multiplies dy by the derivative."""

import math

from minisum.backend import array_module
from minisum.fast import has_fast_forms


@has_fast_forms
def relu(x):
    """y = max(x, 0).   Any shape.

    dx = dy where x > 0, and 0 elsewhere (so the derivative at exactly 0 is 0).

    A maximum and a product, not `where`: on random signs NumPy's `where` takes 17 times as long as
    `maximum`, and it would turn a NaN into a harmless-looking zero.

    Saved: which entries were positive (one byte each).
    """
    positive = x > 0

    def back(dy):
        return dy * positive

    return array_module(x).maximum(x, 0), back


@has_fast_forms
def gelu(x):
    """y = x ⊙ Φ(x), Φ(x) = (1 + erf(x/√2)) / 2 the normal distribution function.   Any shape.

    Product rule, with the normal density φ(x) = exp(-x²/2)/√(2π): dx = dy ⊙ (Φ(x) + x ⊙ φ(x)).
    Hendrycks and Gimpel 2016, in the exact form. erf is most of the work, so Φ(x) is kept.

    Saved: x, Φ(x).
    """
    from minisum.normal import normal_cdf

    xp = array_module(x)
    below = normal_cdf(x)

    def back(dy):
        density = xp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return dy * (below + x * density)

    return x * below, back


def sigmoid(x):
    """y = 1 / (1 + exp(-x)).   Any shape.

    dx = dy ⊙ y ⊙ (1 - y).

    Saved: y.
    """
    y = _sigmoid(x)

    def back(dy):
        return dy * y * (1 - y)

    return y, back


def silu(x):
    """y = x ⊙ σ(x), also called swish.   Any shape.

    Product rule, σ for σ(x): dx = dy ⊙ σ ⊙ (1 + x ⊙ (1 - σ)).

    Saved: x.
    """

    def back(dy):
        s = _sigmoid(x)
        return dy * s * (1 + x * (1 - s))

    return x * _sigmoid(x), back


def softplus(x):
    """y = log(1 + exp(x)), a smooth ReLU.   Any shape.

    dx = dy ⊙ σ(x).

    Saved: x.
    """

    def back(dy):
        return dy * _sigmoid(x)

    return array_module(x).logaddexp(x, 0), back


def _sigmoid(x):
    """σ(x) without overflow: exp is taken of -|x| only."""
    xp = array_module(x)
    small = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1, small) / (1 + small)
