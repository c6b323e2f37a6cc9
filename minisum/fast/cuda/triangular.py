"""Many small triangular systems: a block of threads a system, a thread a right-hand side."""

import math

from minisum.backend import array_module
from minisum.fast.cuda.compiling import launch

LARGEST = 64


def unit_triangular_solve(L, r, transposed):
    """x with L @ x = r, or L.T @ x = r: `linalg.solve` for L with ones on its diagonal.

    L (..., C, C), nothing above the diagonal, C at most 64, r (..., C, w).
    """
    xp = array_module(r)
    L, r = xp.ascontiguousarray(L), xp.ascontiguousarray(r)
    x = xp.empty_like(r)
    C, width = r.shape[-2:]
    systems = math.prod(r.shape[:-2])
    block = (min(256, -(-max(1, width) // 32) * 32), 1, 1)
    sizes = (C, width, int(transposed))
    grid = (systems, 1, 1)
    launch("triangular.cu", "unit_triangular_solve", r.dtype, grid, block, L, r, x, *sizes)
    return x
