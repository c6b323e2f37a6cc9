"""What happens to the flat vectors after a gradient: one kernel for all parameters of a model."""

from functools import cache


@cache
def _elementwise(name):
    import cupy

    return cupy.ElementwiseKernel(*_SOURCES[name], name=f"minisum_{name}")


_SOURCES = {
    "towards": ("T target, T rate", "T y", "y += rate * (target - y);"),
    "adam": (
        "T g, T weight, T scale, T clip, T rate, T shrink, T beta1, T gain1, T beta2, T gain2,"
        "T root, T eps",
        "T theta, T m, T v",
        """
        T gradient = g;
        if (clip > 0) gradient = g > clip ? clip : g < -clip ? -clip : g;  // a NaN stays
        gradient *= scale;
        m = beta1 * m + gain1 * gradient;
        v = beta2 * v + gain2 * gradient * gradient;
        theta -= shrink * weight * theta;
        theta -= rate * m / (sqrt(v) / root + eps);
        """,
    ),
}


def adam(g, weight, scale, clip, rate, shrink, betas, root, eps, theta, m, v):
    """One step of Adam on flat vectors, in place; see minisum.optim.Adam for the formula.

    scale: a number, here or on the device, that multiplies g; clip 0 for no clipping; root
    √(1 - β₂ᵗ).
    """
    # 1 - 0.999 in float32 would be wrong in the fifth digit, so it is taken here.
    decays = (betas[0], 1 - betas[0], betas[1], 1 - betas[1])
    _elementwise("adam")(g, weight, scale, clip, rate, shrink, *decays, root, eps, theta, m, v)


def towards(target, rate, y):
    """y += rate * (target - y), in place."""
    _elementwise("towards")(target, rate, y)
