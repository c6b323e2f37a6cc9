"""First values of parameters. Drawn on the host, so that both backends start alike."""

import numpy as np


def linear(rng, fan_out, fan_in, draw="uniform", bias=True):
    """{"W": (fan_out, fan_in), "b": (fan_out)} of a linear layer, or W alone.

    draw: "uniform", both uniform within ±1/√fan_in, as PyTorch does; "glorot", W uniform within
    ±√(6 / (fan_in + fan_out)) and b zero, as Keras does (Glorot and Bengio 2010); "normal", W from
    N(0, 0.02²) and b zero, as language models do.
    """
    b = np.zeros(fan_out)
    if draw == "normal":
        W = rng.normal(0.0, 0.02, (fan_out, fan_in))
    elif draw == "glorot":
        limit = np.sqrt(6 / (fan_in + fan_out))
        W = rng.uniform(-limit, limit, (fan_out, fan_in))
    else:
        limit = 1 / np.sqrt(fan_in)
        W = rng.uniform(-limit, limit, (fan_out, fan_in))
        b = rng.uniform(-limit, limit, fan_out) if bias else b
    return {"W": W, "b": b} if bias else {"W": W}


def norm(width, bias=True):
    """{"gain", "bias"} of a layer norm, or the gain of an RMSNorm: it changes nothing at first."""
    return {"gain": np.ones(width)} | ({"bias": np.zeros(width)} if bias else {})
