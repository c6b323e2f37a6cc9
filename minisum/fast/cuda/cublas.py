"""cuBLAS's matrix product where CuPy does not call it: while a GPU's work is being recorded.

CuPy refuses its own products then, although cuBLAS has long allowed them (CUDA graphs, see
`recording`). So this calls the same function of the same library, the one that CuPy has
loaded, with a workspace of its own, since memory that cuBLAS takes during a recording would be
given to others afterwards.
"""

import ctypes
import os
import re
from functools import cache

from minisum.errors import UserError

WORKSPACE = 32 << 20  # bytes; what cuBLAS asks for on the largest devices
FUNCTIONS = {"float32": "cublasSgemmStridedBatched", "float64": "cublasDgemmStridedBatched"}
KEEP, TRANSPOSE = 0, 1
TF32_MATH = 3


@cache
def _library():
    """The cuBLAS that this process uses already. UserError where it cannot be found."""
    import cupy

    cupy.cuda.device.get_cublas_handle()  # loads it
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
            return ctypes.CDLL(next(filter(None, map(_path_of_cublas, lines))))
    except (OSError, StopIteration):
        raise UserError("cuBLAS is not found among this process's libraries") from None


def _path_of_cublas(line):
    """The file that a line of /proc/self/maps names, if it is cuBLAS; its path may have blanks."""
    found = re.search(r"/.*/libcublas\.so[.\d]*", line)
    return found and found[0]


@cache
def _handle():
    import cupy

    library, handle = _library(), ctypes.c_void_p()
    _check(library.cublasCreate_v2(ctypes.byref(handle)))
    if os.environ.get("CUPY_TF32") == "1":
        _check(library.cublasSetMathMode(handle, TF32_MATH))
    return handle, cupy.cuda.alloc(WORKSPACE)


def _check(status):
    if status:
        raise RuntimeError(f"cuBLAS returned status {status}")


def prepare(stream):
    """Have the products from now on run on `stream`. Choosing one resets the workspace."""
    handle, workspace = _handle()
    _check(_library().cublasSetStream_v2(handle, ctypes.c_void_p(stream.ptr)))
    size = ctypes.c_size_t(WORKSPACE)
    _check(_library().cublasSetWorkspace_v2(handle, ctypes.c_void_p(workspace.ptr), size))


def product(a, b, out=None):
    """a @ b of CuPy arrays (..., m, k) and (..., k, n), in `out` if given (without gaps).

    NotImplementedError unless both are of one of two types and have the same leading axes.
    """
    import cupy

    lead, (m, k), n = a.shape[:-2], a.shape[-2:], b.shape[-1]
    if a.dtype != b.dtype or a.dtype.name not in FUNCTIONS or b.shape[:-1] != (*lead, k):
        raise NotImplementedError(f"product of {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    y = cupy.empty((*lead, m, n), a.dtype) if out is None else out
    if not y.size:
        return y
    if not k:
        y[...] = 0
        return y
    number = {"float32": ctypes.c_float, "float64": ctypes.c_double}[a.dtype.name]
    (a, a_turned, a_row), (b, b_turned, b_row) = _readable(a), _readable(b)
    # cuBLAS counts down columns: to it a row-major y is y.T = b.T @ a.T.
    arguments = (
        *(b_turned, a_turned, n, m, k, number(1)),
        *(b, b_row, _step(b)),
        *(a, a_row, _step(a)),
        *(number(0), y, n, _step(y), y.size // (m * n)),
    )
    call = getattr(_library(), FUNCTIONS[a.dtype.name])
    _check(call(_handle()[0], *map(_argument, arguments)))
    return y


def _readable(x):
    """x or a copy that cuBLAS can read, whether it is turned, and its row length in memory.

    One of the last two axes must be without gaps, and the leading axes one regular step apart.
    """
    rows, columns = (stride // x.itemsize for stride in x.strides[-2:])
    if _regular(x) and columns == 1 and rows >= x.shape[-1]:
        return x, KEEP, rows
    if _regular(x) and rows == 1 and columns >= x.shape[-2]:
        return x, TRANSPOSE, columns
    import cupy

    # Also for axes of length one, whose strides mean nothing.
    copy = cupy.empty(x.shape, x.dtype)
    copy[...] = x
    return copy, KEEP, x.shape[-1]


def _regular(x):
    """Whether the leading axes can be walked with one step."""
    steps = zip(x.shape[1:-2], x.strides[:-3], x.strides[1:-2], strict=True)
    return all(outer == inner * size for size, outer, inner in steps)


def _step(x):
    return ctypes.c_longlong(x.strides[-3] // x.itemsize if x.ndim > 2 else 0)


def _argument(value):
    if hasattr(value, "data") and hasattr(value, "strides"):
        return ctypes.c_void_p(value.data.ptr)
    if isinstance(value, (ctypes.c_float, ctypes.c_double)):
        return ctypes.byref(value)
    return value if isinstance(value, ctypes.c_longlong) else ctypes.c_int(value)
