"""Many small triangular systems: a block of threads a system, a thread a right-hand side."""

import math

from minisum.backend import array_module
from minisum.fast.cuda import compiling

LARGEST = 64


def unit_triangular_solve(L, r, turned=False):
    """x with L @ x = r, or L.T @ x = r: `linalg.solve` for L with ones on its diagonal.

    L (..., C, C), nothing above the diagonal, C at most 64, r (..., C, w).
    """
    if not compiling.runs_on(L, r) or L.shape[-1] > LARGEST:
        return NotImplemented
    xp = array_module(r)
    L, r = xp.ascontiguousarray(L), xp.ascontiguousarray(r)
    x = xp.empty_like(r)
    C, width = r.shape[-2:]
    systems = math.prod(r.shape[:-2])
    block = (min(256, -(-max(1, width) // 32) * 32), 1, 1)
    grid, arguments = (systems, 1, 1), (L, r, x, C, width, int(turned))
    compiling.launch("triangular.cu", "unit_triangular_solve", r.dtype, grid, block, *arguments)
    return x
