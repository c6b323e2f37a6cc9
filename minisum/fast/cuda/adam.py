"""What happens to the flat vectors after a gradient: one kernel for all parameters of a model."""

import math
from functools import cache

from minisum.fast.cuda import compiling

_SOURCES = {
    "lerp": ("T target, T rate", "T y", "y += rate * (target - y);"),
    "adam": (
        "T g, T decay, T scale, T clip, T rate, T lr, T beta1, T gain1, T beta2, T gain2,"
        "T root, T eps",
        "T theta, T m, T v",
        """
        T gradient = g;
        if (clip > 0) gradient = g > clip ? clip : g < -clip ? -clip : g;  // a NaN stays
        gradient *= scale;
        m = beta1 * m + gain1 * gradient;
        v = beta2 * v + gain2 * gradient * gradient;
        theta -= lr * decay * theta;
        theta -= rate * m / (sqrt(v) / root + eps);
        """,
    ),
}


@cache
def _elementwise(name):
    import cupy

    return cupy.ElementwiseKernel(*_SOURCES[name], name=f"minisum_{name}")


def adam_update(theta, m, v, g, t, lr, betas, eps, decay, clip, scale, workers):
    if not compiling.runs_on(theta, g):
        return NotImplemented
    decay = compiling.dummy_array(theta.dtype) if decay is None else decay
    # 1 - 0.999 in float32 would be wrong in the fifth digit, so it is taken here.
    gains = (betas[0], 1 - betas[0], betas[1], 1 - betas[1])
    rate, root = lr / (1 - betas[0] ** t), math.sqrt(1 - betas[1] ** t)
    scale = 1.0 if scale is None else scale
    _elementwise("adam")(g, decay, scale, clip or 0.0, rate, lr, *gains, root, eps, theta, m, v)
    return None


def lerp(y, target, rate, workers):
    if not compiling.runs_on(y, target):
        return NotImplemented
    _elementwise("lerp")(target, rate, y)
    return None
