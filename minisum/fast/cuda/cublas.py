"""cuBLAS's matrix product where CuPy's own will not do: recorded, or in another precision.

CuPy refuses its products while a GPU's work is being recorded, although cuBLAS has long allowed
them (CUDA graphs, see `recording`). So this calls the same library, the one that CuPy has loaded,
with a workspace of its own, since memory that cuBLAS takes during a recording would be given to
others afterwards.
"""

import ctypes
import math
from ctypes import c_int, c_longlong, c_void_p
from functools import cache

from minisum.errors import UserError
from minisum.fast.cuda import precision

WORKSPACE = 32 << 20  # bytes; what cuBLAS asks for on the largest devices
KEEP, TRANSPOSE = 0, 1
REAL32, REAL64, BFLOAT16 = 0, 1, 14  # types, by CUDA's numbers
COMPUTE32, COMPUTE_TF32, COMPUTE64, DEFAULT = 68, 77, 70, -1  # ways to compute, by cuBLAS's
_MATRIX = c_void_p, c_int, c_int, c_longlong  # its start, type, row length and step to the next
_SIZES = c_int, c_int, c_int, c_int, c_int  # transposed or not, m, n and k
_ENDS = c_void_p, *_MATRIX, c_int, c_int, c_int  # beta, C, how many, the way and the algorithm
_PRODUCT = c_void_p, *_SIZES, c_void_p, *_MATRIX, *_MATRIX, *_ENDS


@cache
def _cublas():
    """(the library, handle, workspace)."""
    import cupy

    cupy.cuda.device.get_cublas_handle()  # loads the library, which is then found by its name
    try:
        library = ctypes.CDLL(f"libcublas.so.{cupy.cuda.runtime.runtimeGetVersion() // 1000}")
    except OSError:
        raise UserError("cuBLAS is not found among this process's libraries") from None
    library.cublasGemmStridedBatchedEx.argtypes = _PRODUCT
    handle = c_void_p()
    _check(library.cublasCreate_v2(ctypes.byref(handle)))
    return library, handle, cupy.cuda.alloc(WORKSPACE)


def _check(status):
    if status:
        raise RuntimeError(f"cuBLAS returned status {status}")


def prepare(stream):
    """Have the products from now on run on `stream`. Choosing one resets the workspace."""
    library, handle, workspace = _cublas()
    _check(library.cublasSetStream_v2(handle, c_void_p(stream.ptr)))
    size = ctypes.c_size_t(WORKSPACE)
    _check(library.cublasSetWorkspace_v2(handle, c_void_p(workspace.ptr), size))


def takes(a, b):
    """Whether their product is another than CuPy's."""
    types = {a.dtype.char, b.dtype.char}
    chosen = "H" in types or (precision.chosen != "float32" and types == {"f"})
    return chosen and a.shape[:-2] == b.shape[:-2]


def product(a, b, out=None, add=False):
    """a @ b of CuPy arrays (..., m, k) and (..., k, n), in `out` (without gaps) or added to it.

    Of float32 in the precision that is chosen, and float32 of bfloat16, which is uint16 here.
    NotImplementedError for other types than these and float64, and for other leading axes.
    """
    import cupy

    library, handle, _ = _cublas()
    lead, (m, k), n = a.shape[:-2], a.shape[-2:], b.shape[-1]
    types = {a.dtype.char, b.dtype.char}
    if types not in ({"f"}, {"d"}, {"H"}, {"f", "H"}) or b.shape[:-1] != (*lead, k):
        raise NotImplementedError(f"product of {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    y = cupy.empty((*lead, m, n), "d" if types == {"d"} else "f") if out is None else out
    if not y.size or not k:
        y[...] = y if add else 0
        return y
    number, real, way = ctypes.c_double, REAL64, COMPUTE64
    if types != {"d"}:
        number, real = ctypes.c_float, REAL32
        way = COMPUTE_TF32 if precision.chosen == "tf32" else COMPUTE32
    read, kind = _readable, real
    if "H" in types or (types == {"f"} and precision.chosen == "bf16"):
        read, kind = _rounded, BFLOAT16
    (a, a_turned, a_steps), (b, b_turned, b_steps) = read(a), read(b)
    one, beta = ctypes.byref(number(1)), ctypes.byref(number(add))
    # cuBLAS counts down columns: to it a row-major y is y.T = b.T @ a.T.
    factors = (b.data.ptr, kind, *b_steps, a.data.ptr, kind, *a_steps)
    to = (y.data.ptr, real, n, m * n, y.size // (m * n), way, DEFAULT)
    sizes = (b_turned, a_turned, n, m, k)
    _check(library.cublasGemmStridedBatchedEx(handle, *sizes, one, *factors, beta, *to))
    return y


def _rounded(x):
    """`_readable` in bfloat16."""
    x, turned, steps = _readable(x)
    if x.dtype.char == "f":  # without gaps, in the same order
        x = precision.to_bfloat16(x.swapaxes(-1, -2) if turned else x)
        steps = x.shape[-1], math.prod(x.shape[-2:])
    return x, turned, steps


def _readable(x):
    """x or a copy that cuBLAS can read, whether it is turned, its row length and its step.

    One of the last two axes must be without gaps, and the leading axes one regular step apart.
    """
    *steps, rows, columns = (stride // x.itemsize for stride in x.strides)
    axes = zip(steps, steps[1:], x.shape[1:], strict=False)
    regular = all(outer == inner * size for outer, inner, size in axes)
    step = steps[-1] if steps else 0
    if regular and columns == 1 and rows >= x.shape[-1]:
        return x, KEEP, (rows, step)
    if regular and rows == 1 and columns >= x.shape[-2]:
        return x, TRANSPOSE, (columns, step)
    copy = x.copy(order="C")  # also for axes of length one, whose strides mean nothing
    return copy, KEEP, (x.shape[-1], math.prod(x.shape[-2:]))
