"""Initial parameters, drawn on the host, so that both backends start with the same."""

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


def attention(rng, width, heads, head_width, draw="glorot"):
    """{"q", "k", "v" (H h, d), "o" (d, H h)}, the layers of multi-head attention, with biases.

    draw: one of `linear`; or that of a library, whose biases are zero: "keras", weights as Keras
    drew them before version 3.13, Glorot's limit with the fans of arrays (d, H, h) and (H, h, d);
    "pytorch", as torch.nn.MultiheadAttention: Glorot's limit of one (3 H h, d) matrix for q, k and
    v, and "uniform" for o.
    """
    d, H, h = width, heads, head_width
    if draw not in ("keras", "pytorch"):
        return {c: linear(rng, H * h, d, draw) for c in "qkv"} | {"o": linear(rng, d, H * h, draw)}
    if draw == "keras":
        into, out = np.sqrt(6 / ((H + h) * d)), np.sqrt(6 / ((h + d) * H))
    else:
        into, out = np.sqrt(6 / (d + 3 * H * h)), 1 / np.sqrt(H * h)
    layers = {c: {"W": rng.uniform(-into, into, (H * h, d)), "b": np.zeros(H * h)} for c in "qkv"}
    return layers | {"o": {"W": rng.uniform(-out, out, (d, H * h)), "b": np.zeros(d)}}


def step_bias(rng, count):
    """Biases (count,) of steps or decay rates: their softplus is log-uniform in [0.001, 0.1]."""
    return np.log(np.expm1(np.exp(rng.uniform(np.log(1e-3), np.log(0.1), count))))


def norm(width, bias=True):
    """{"gain", "bias"} of a layer norm, or the gain of an RMSNorm: ones and zeros."""
    return {"gain": np.ones(width)} | ({"bias": np.zeros(width)} if bias else {})
