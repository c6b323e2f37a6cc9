"""Products of the tokens of a chunk with a decay for each channel, in one kernel each way."""

import math

from minisum.backend import array_module
from minisum.fast.cuda.compiling import contiguous, launch

LONGEST = 64  # tokens of a chunk that the kernels have room for


def decayed_products(b):
    """As `minisum.fast.decayed_products`, of b (.., C, K) with C of at most LONGEST."""
    xp, C = array_module(b), b.shape[-2]

    def of(x, *arrays):
        """All of one shape and without gaps, and how many chunks and channels there are."""
        logs = xp.broadcast_to(b, x.shape)
        return *contiguous(*arrays, logs), (math.prod(x.shape[:-2]),), x.shape[-1]

    def products(x, y):
        x, y, logs, grid, K = of(x, x, y)
        A = xp.empty((*x.shape[:-1], C), x.dtype)
        launch("decayed.decayed_products", grid, (256,), x, y, logs, A, C, K)
        return A

    def back(dA, x, y):
        dA, x, y, logs, grid, K = of(x, dA, x, y)
        dx, dy = xp.empty_like(x), xp.empty_like(y)
        launch("decayed.decayed_products_back", grid, (256,), dA, x, y, logs, dx, dy, C, K)
        return dx, dy

    return products, back
