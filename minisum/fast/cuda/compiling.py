"""From CUDA C++ to a function of Python."""

from functools import cache
from pathlib import Path

import numpy as np

from minisum.backend import array_module
from minisum.fast import one_real_type

HERE = Path(__file__).parent
# Vectorized loads and stores: neighbouring numbers that a thread reads or writes at once. Four in
# float32 are 16 bytes, the most that one instruction moves (in float64 it takes two).
PACK = 4


def runs_on(*arrays):
    """Whether the kernels can take these arrays: on a GPU, all of one of the two types.

    None stands for no array.
    """
    on_device = all(array_module(a) is not np for a in arrays if a is not None)
    return on_device and one_real_type(*arrays)


@cache
def compiled(source, name, dtype, pack):
    """The kernel `name` of a file for one type. Compiling takes a moment, once."""
    import cupy

    number = {"float32": "float", "float64": "double"}[dtype]
    symbol = f"{name}<{number}, {pack}>" if pack else f"{name}<{number}>"
    parts = [HERE.joinpath(file).read_text(encoding="utf-8") for file in ("shared.cu", source)]
    module = cupy.RawModule(code="".join(parts), options=("-std=c++17",), name_expressions=[symbol])
    return module.get_function(symbol)


def launch(source, name, dtype, grid, block, *arguments, pack=None):
    """Run a kernel of the file `source`.

    Numbers are passed as int32 if they are integers, else as `dtype`; None stands for no array.
    pack: a kernel's numbers a thread, see `packing`. A grid without blocks is nothing to do.
    ValueError for an array with gaps, in another order or of another type, which a kernel would
    misread.
    """
    for a in arguments:
        on_device = array_module(a) is not np
        if on_device and not (a.flags.c_contiguous and a.dtype in (dtype, "int32", "bool")):
            raise ValueError(f"{name} needs {dtype} in row-major order without gaps, not {a.dtype}")
    if 0 in grid:
        return
    number = np.dtype(dtype).type
    passed = [
        np.uintp(0) if a is None
        else np.int32(a) if isinstance(a, int)
        else number(a) if isinstance(a, float)
        else a
        for a in arguments
    ]  # fmt: skip
    compiled(source, name, np.dtype(dtype).name, pack)(grid, block, tuple(passed))


def packing(columns, *arrays):
    """How many neighbouring columns a thread takes: PACK, or 1 unless that divides everything.

    arrays: what may be a view; each must start at a multiple of PACK numbers, as new arrays do.
    None stands for no array.
    """
    places = [a.data.ptr % (PACK * a.itemsize) for a in arrays if a is not None]
    return 1 if columns % PACK or any(places) else PACK


def contiguous(*arrays):
    """The arrays in row-major order without gaps, as kernels read them; None for no array."""
    return [a if a is None else array_module(a).ascontiguousarray(a) for a in arrays]


@cache
def dummy_array(dtype):
    """An array of one zero, for a kernel's argument that is not read or does nothing."""
    import cupy

    return cupy.zeros(1, dtype)


def threads_for(width):
    """Threads of a block that works on a row: whole warps, as the sums over a block need."""
    return 32 if width <= 64 else 128 if width <= 1024 else 256
