"""cuBLAS's matrix product where CuPy does not call it: while a GPU's work is being recorded.

CuPy refuses its own products then, although cuBLAS has long allowed them (CUDA graphs, see
`recording`). So this calls the same function of the same library, the one that CuPy has
loaded, with a workspace of its own, since memory that cuBLAS takes during a recording would be
given to others afterwards.
"""

import ctypes
import math
import os
from ctypes import c_int, c_longlong, c_void_p
from functools import cache

from minisum.errors import UserError

WORKSPACE = 32 << 20  # bytes; what cuBLAS asks for on the largest devices
KEEP, TRANSPOSE = 0, 1
TF32_MATH = 3
_MATRIX = c_void_p, c_int, c_longlong  # its start, row length and step to the next
_SIZES = c_int, c_int, c_int, c_int, c_int  # transposed or not, m, n and k
_PRODUCT = c_void_p, *_SIZES, c_void_p, *_MATRIX, *_MATRIX, c_void_p, *_MATRIX, c_int


@cache
def _cublas():
    """(the product of each type, the functions that `prepare` a stream, handle, workspace)."""
    import cupy

    cupy.cuda.device.get_cublas_handle()  # loads the library, which is then found by its name
    try:
        library = ctypes.CDLL(f"libcublas.so.{cupy.cuda.runtime.runtimeGetVersion() // 1000}")
    except OSError:
        raise UserError("cuBLAS is not found among this process's libraries") from None
    products = {
        "float32": (library.cublasSgemmStridedBatched, ctypes.c_float),
        "float64": (library.cublasDgemmStridedBatched, ctypes.c_double),
    }
    for product, _ in products.values():
        product.argtypes = _PRODUCT
    handle = c_void_p()
    _check(library.cublasCreate_v2(ctypes.byref(handle)))
    if os.environ.get("CUPY_TF32") == "1":
        _check(library.cublasSetMathMode(handle, TF32_MATH))
    return products, library, handle, cupy.cuda.alloc(WORKSPACE)


def _check(status):
    if status:
        raise RuntimeError(f"cuBLAS returned status {status}")


def prepare(stream):
    """Have the products from now on run on `stream`. Choosing one resets the workspace."""
    _, library, handle, workspace = _cublas()
    _check(library.cublasSetStream_v2(handle, c_void_p(stream.ptr)))
    size = ctypes.c_size_t(WORKSPACE)
    _check(library.cublasSetWorkspace_v2(handle, c_void_p(workspace.ptr), size))


def product(a, b, out=None):
    """a @ b of CuPy arrays (..., m, k) and (..., k, n), in `out` if given (without gaps).

    NotImplementedError unless both are of one of two types and have the same leading axes.
    """
    import cupy

    products, _, handle, _ = _cublas()
    lead, (m, k), n = a.shape[:-2], a.shape[-2:], b.shape[-1]
    if a.dtype != b.dtype or a.dtype.name not in products or b.shape[:-1] != (*lead, k):
        raise NotImplementedError(f"product of {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    y = cupy.empty((*lead, m, n), a.dtype) if out is None else out
    if not y.size or not k:
        y[...] = 0
        return y
    multiply, number = products[a.dtype.name]
    one, zero = ctypes.byref(number(1)), ctypes.byref(number(0))
    (a, a_turned, a_steps), (b, b_turned, b_steps) = _readable(a), _readable(b)
    # cuBLAS counts down columns: to it a row-major y is y.T = b.T @ a.T.
    factors = (b.data.ptr, *b_steps, a.data.ptr, *a_steps)
    to = (y.data.ptr, n, m * n, y.size // (m * n))
    _check(multiply(handle, b_turned, a_turned, n, m, k, one, *factors, zero, *to))
    return y


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
