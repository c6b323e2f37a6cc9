"""Running sums in two levels: inside chunks, then of the chunks' totals."""

import numpy as np

CHUNK = 64


def cumsum(x, axis, reverse=False):
    """Several times faster once x outgrows a core's cache.

    Where the axis is not the last, NumPy walks the whole length one channel at a time.
    """
    if reverse:
        return np.flip(cumsum(np.flip(x, axis), axis), axis)
    n = x.shape[axis]
    if n <= CHUNK:
        return np.cumsum(x, axis)
    if padding := -n % CHUNK:
        x = np.pad(x, [(0, padding * (i == axis)) for i in range(x.ndim)])
    chunked = x.reshape(*x.shape[:axis], -1, CHUNK, *x.shape[axis + 1 :])
    sums = np.moveaxis(np.cumsum(chunked, axis + 1), (axis, axis + 1), (0, 1))
    sums[1:] += np.cumsum(sums[:-1, -1], 0)[:, None]
    joined = np.moveaxis(sums, (0, 1), (axis, axis + 1)).reshape(x.shape)
    return joined[(slice(None),) * axis + (slice(0, n),)]
