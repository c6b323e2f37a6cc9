"""Functions of one number, applied to each entry: the derivative multiplies the gradient."""

import math

import numpy as np

from minisum.backend import array_module


def relu(x):
    """y = max(x, 0).   Any shape.

    dx = dy where x > 0, and 0 elsewhere (so the derivative at exactly 0 is 0).

    A maximum and a product, not `where`: on signs that follow no pattern NumPy's `where` takes
    17 times as long as `maximum`, and it would turn a NaN into a harmless-looking zero.

    Saved: which entries were positive (one byte each).
    """
    positive = x > 0

    def back(dy):
        return dy * positive

    return array_module(x).maximum(x, 0), back


def gelu(x):
    """y = x ⊙ Φ(x), Φ the normal distribution function, (1 + erf(x/√2)) / 2.   Any shape.

    Product rule, with the normal density φ(x) = exp(-x²/2)/√(2π): dx = dy ⊙ (Φ(x) + x ⊙ φ(x)).
    Hendrycks and Gimpel 2016, in the exact form with erf, which is most of the work and so kept.

    Saved: x, Φ(x).
    """
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
    """σ(x) without overflow: exp is only ever taken of a number below zero."""
    xp = array_module(x)
    small = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1, small) / (1 + small)


# Coefficients of W. J. Cody, "Rational Chebyshev approximations for the error function",
# Mathematics of Computation 23 (1969), highest power first: numerator and denominator of erf for
# |z| <= 0.46875, and of erfc for |z| <= 4 and, in 1/z², beyond.
_NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
     2.84423683343917062e3),
)  # fmt: skip
_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
     1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3,
     1.23033935480374942e3),
)  # fmt: skip
_FAR = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
     1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1,
     6.05183413124413191e-2, 2.33520497626869185e-3),
)  # fmt: skip


def normal_cdf(x):
    """Φ(x) = erfc(-x/√2) / 2, to the last digits of the input's type, in both tails.

    NumPy has no error function. Cody's three rational ones on NumPy; CuPy's own on a GPU. In the
    left tail Φ is taken from erfc itself: (1 + erf) / 2 would have no digit left below x = -8.
    """
    xp = array_module(x)
    if xp is not np:
        from cupyx.scipy.special import ndtr

        return ndtr(x)
    z = x * math.sqrt(0.5)
    size = np.abs(z)
    near = z * _ratio(_NEAR, np.minimum(size, 0.46875) ** 2)
    middle = _ratio(_MIDDLE, np.clip(size, 0.46875, 4))
    far = np.clip(size, 4, 30)
    inverse = 1 / (far * far)
    tail = (1 / math.sqrt(math.pi) - inverse * _ratio(_FAR, inverse)) / far
    # exp(-x²/2) rather than exp(-z²): z is rounded, and the square would double its error.
    erfc = np.exp(-0.5 * np.minimum(np.abs(x), 40) ** 2) * np.where(size <= 4, middle, tail)
    beyond = np.where(z < 0, 0.5 * erfc, 1 - 0.5 * erfc)
    return np.where(size <= 0.46875, 0.5 + 0.5 * near, beyond)


def _ratio(coefficients, x):
    top, bottom = (np.full_like(x, powers[0]) for powers in coefficients)
    for a, b in zip(coefficients[0][1:], coefficients[1][1:], strict=True):
        top = top * x + a
        bottom = bottom * x + b
    return top / bottom
