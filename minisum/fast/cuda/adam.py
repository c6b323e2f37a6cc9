"""What happens to the flat vectors after a gradient: one kernel for all parameters of a model."""

import math
from functools import cache

from minisum.fast.cuda import compiling

_SOURCE = """
    T gradient = g;
    if (clip > 0) gradient = g > clip ? clip : g < -clip ? -clip : g;  // a NaN stays
    gradient *= scale;
    m = beta1 * m + gain1 * gradient;
    v = beta2 * v + gain2 * gradient * gradient;
    theta -= lr * decay * theta;
    theta -= step * m / (sqrt(v) + eps);
"""
_READ = "T g, T decay, T scale, T clip, T step, T lr, T beta1, T gain1, T beta2, T gain2, T eps"


@cache
def _kernel(averages):
    import cupy

    read, written, source = f"{_READ}, T rate", "T theta, T m, T v", _SOURCE
    if averages:
        written, source = f"{written}, T average", source + "average += rate * (theta - average);"
    return cupy.ElementwiseKernel(read, written, source, name=f"minisum_adam_{averages}")


def adam_update(theta, m, v, g, t, lr, betas, eps, decay, clip, scale, average, rate, workers):
    if not compiling.runs_on(theta, g):
        return NotImplemented
    # 1 - 0.999 in float32 would be wrong in the fifth digit, so it is taken here.
    gains = (betas[0], 1 - betas[0], betas[1], 1 - betas[1])
    # Both sides of the fraction times root, which spares a division of √v by it.
    root = math.sqrt(1 - betas[1] ** t)
    step = lr * root / (1 - betas[0] ** t)
    scale = 1.0 if scale is None else scale
    moved = (theta, m, v) if average is None else (theta, m, v, average)
    numbers = (scale, clip or 0.0, step, lr, *gains, eps * root, rate or 0.0)
    _kernel(average is not None)(g, 0.0 if decay is None else decay, *numbers, *moved)
    return None
