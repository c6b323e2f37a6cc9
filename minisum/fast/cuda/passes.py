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
    one_pass("add_bias", x, b, columns=len(b))


def one_pass(kernel, x, *arrays, columns=None):
    """A kernel of passes.cu, a thread a pack of x. columns: of each row, where that matters."""
    K = compiling.packing(columns or x.size, x, *arrays)
    sizes = (x.size // K,) if columns is None else (x.size // K, columns)
    grid = (-(-x.size // (256 * K)),)
    compiling.launch(f"passes.{kernel}", grid, (256,), x, *arrays, *sizes, pack=K)
