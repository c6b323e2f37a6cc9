"""The normal distribution function, which GELU needs and NumPy lacks."""

import math

from minisum.backend import array_module
from minisum.fast import has_fast_forms

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


@has_fast_forms
def normal_cdf(x):
    """Φ(x) = erfc(-x/√2) / 2, to the last digits of the input's type, in both tails.

    By Cody's three rational functions. In the left tail Φ is taken from erfc itself: (1 + erf) / 2
    would have no digit left below x = -8.
    """
    xp = array_module(x)
    z = x * math.sqrt(0.5)
    size = xp.abs(z)
    near = z * _ratio(_NEAR, xp.minimum(size, 0.46875) ** 2)
    middle = _ratio(_MIDDLE, xp.clip(size, 0.46875, 4))
    far = xp.clip(size, 4, 30)
    inverse = 1 / (far * far)
    tail = (1 / math.sqrt(math.pi) - inverse * _ratio(_FAR, inverse)) / far
    # exp(-x²/2) rather than exp(-z²): z is rounded, and the square would double its error.
    erfc = xp.exp(-0.5 * xp.minimum(xp.abs(x), 40) ** 2) * xp.where(size <= 4, middle, tail)
    beyond = xp.where(z < 0, 0.5 * erfc, 1 - 0.5 * erfc)
    return xp.where(size <= 0.46875, 0.5 + 0.5 * near, beyond)


def _ratio(coefficients, x):
    numerator, denominator = (0 * x + powers[0] for powers in coefficients)
    for a, b in zip(coefficients[0][1:], coefficients[1][1:], strict=True):
        numerator = numerator * x + a
        denominator = denominator * x + b
    return numerator / denominator
