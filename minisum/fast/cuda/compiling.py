"""From CUDA C++ to a function of Python."""

from functools import cache
from pathlib import Path

import numpy as np

from minisum.backend import array_module
from minisum.fast import one_real_type

HERE = Path(__file__).parent
_NUMBER = {"f": "float", "d": "double"}
# Vectorized loads and stores: neighbouring numbers that a thread reads or writes at once. Four in
# float32 are 16 bytes, the most that one instruction moves (in float64 it takes two).
PACK = 4


def runs_on(*arrays):
    """Whether the kernels can take these arrays, or None: on a GPU, all of one of the two types."""
    on_device = all(array_module(a) is not np for a in arrays if a is not None)
    return on_device and one_real_type(*arrays)


@cache
def compiled(source, name, number, pack):
    """The kernel `name` of a file for one type. Compiling takes a moment, once."""
    import cupy

    symbol = f"{name}<{number}, {pack}>" if pack else f"{name}<{number}>"
    parts = [HERE.joinpath(file).read_text(encoding="utf-8") for file in ("shared.cu", source)]
    module = cupy.RawModule(code="".join(parts), options=("-std=c++17",), name_expressions=[symbol])
    return module.get_function(symbol)


def launch(kernel, grid, block, *arguments, pack=None):
    """Run a kernel, "file.name", in float32 or float64, as the first real array is.

    Integers are passed as int32, other numbers in that type; None stands for no array. pack: a
    kernel's numbers a thread, see `packing`, or what else its template takes. A grid without blocks
    is nothing to do. ValueError for an array with gaps, in another order or of another type, which
    a kernel would misread.
    """
    arrays = [a for a in arguments if array_module(a) is not np]
    dtype = next(a.dtype for a in arrays if a.dtype.kind == "f")
    for a in arrays:
        if not a.flags.c_contiguous or a.dtype not in (dtype, "int32", "uint16", "bool"):
            message = f"{kernel} needs {dtype} in row-major order without gaps, not {a.dtype}"
            raise ValueError(message)
    if 0 not in grid:
        passed = tuple(_passed(a, dtype.type) for a in arguments)
        file, name = kernel.split(".")
        compiled(f"{file}.cu", name, _NUMBER[dtype.char], pack)(grid, block, passed)


def _passed(a, number):
    if a is None:
        return np.uintp(0)
    return np.int32(a) if isinstance(a, int) else number(a) if isinstance(a, float) else a


def packing(columns, *arrays):
    """How many neighbouring columns a thread takes: PACK, or 1 unless that divides everything.

    arrays: what may be a view, or None; each must start at a multiple of PACK, as new arrays do.
    """
    places = [a.data.ptr % (PACK * a.itemsize) for a in arrays if a is not None]
    return 1 if columns % PACK or any(places) else PACK


def contiguous(*arrays):
    """The arrays in row-major order without gaps, as kernels read them; None for no array."""
    return [a if a is None else array_module(a).ascontiguousarray(a) for a in arrays]


def threads_for(width):
    """A block of threads that works on a row: whole warps, as the sums over a block need."""
    return (32 if width <= 64 else 128 if width <= 1024 else 256,)
