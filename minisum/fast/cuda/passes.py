"""Elementwise work in one pass over memory, neighbouring numbers a thread (passes.cu)."""

from minisum.backend import array_module
from minisum.fast.cuda import compiling


def relu(x):
    """A kernel each way.

    Saved: which entries were positive (one byte each).
    """
    if not compiling.runs_on(x):
        return NotImplemented
    (x,), xp = compiling.contiguous(x), array_module(x)
    y, positive = xp.empty_like(x), xp.empty(x.shape, bool)
    one_pass("relu", x, y, positive)

    def back(dy):
        (dy,) = compiling.contiguous(dy)
        dx = xp.empty_like(dy)
        one_pass("relu_back", dy, positive, dx)
        return dx

    return y, back


def add_bias(x, b):
    """Each row of x (.., d), without gaps, += b (d)."""
    (b,) = compiling.contiguous(b)
    one_pass("add_bias", x, b, len(b), columns=len(b))


def add_scaled(x, y, scale=1.0):
    """One kernel, for a scale that the host knows."""
    if not compiling.runs_on(x, y) or x.shape != y.shape or not isinstance(scale, float):
        return NotImplemented
    x, y = compiling.contiguous(x, y)
    total = array_module(x).empty_like(x)
    one_pass("add_scaled", x, y, total, scale)
    return total


def one_pass(kernel, x, *arguments, columns=None):
    """A kernel of passes.cu, a thread a pack of x: arrays, the number of packs, other arguments.

    columns: of each row, where that matters.
    """
    arrays = [a for a in arguments if hasattr(a, "dtype")]
    K = compiling.packing(columns or x.size, x, *arrays)
    grid, others = (-(-x.size // (256 * K)),), arguments[len(arrays) :]
    sizes = x.size // K, *others
    compiling.launch(f"passes.{kernel}", grid, (256,), x, *arrays, *sizes, pack=K)
