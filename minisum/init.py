"""First values of parameters. Drawn on the host, so that both backends start alike."""

import numpy as np


def glorot_uniform(rng, fan_out, fan_in):
    """(fan_out, fan_in), uniform within ±√(6 / (fan_in + fan_out)). Glorot and Bengio 2010."""
    limit = np.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, (fan_out, fan_in))


def fan_in_uniform(rng, fan_out, fan_in):
    """(fan_out, fan_in), uniform within ±1/√fan_in: what PyTorch gives a linear layer."""
    limit = 1 / np.sqrt(fan_in)
    return rng.uniform(-limit, limit, (fan_out, fan_in))
