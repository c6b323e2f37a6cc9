"""Running sums in two levels: inside chunks, then of the chunks' totals."""

from minisum.backend import array_module

CHUNK = 64


def cumsum(x, axis, short=None):
    """Several times faster once x outgrows a core's cache.

    Where the axis is not the last, NumPy walks the whole length one channel at a time. short: the
    form for axes of at most CHUNK entries, by default the array module's.
    """
    xp, n = array_module(x), x.shape[axis]
    short = short or xp.cumsum
    if n <= CHUNK:
        return short(x, axis)
    padding = -n % CHUNK
    if padding:
        x = xp.pad(x, [(0, padding * (i == axis)) for i in range(x.ndim)])
    chunked = x.reshape(*x.shape[:axis], -1, CHUNK, *x.shape[axis + 1 :])
    sums = xp.moveaxis(short(chunked, axis + 1), (axis, axis + 1), (0, 1))
    sums[1:] += short(sums[:-1, -1], 0)[:, None]
    joined = xp.moveaxis(sums, (0, 1), (axis, axis + 1)).reshape(x.shape)
    return joined[(slice(None),) * axis + (slice(0, n),)]
