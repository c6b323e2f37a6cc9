"""Many small triangular systems: a block of threads a system, a thread a right-hand side."""

import math

from minisum.backend import array_module
from minisum.fast.cuda import compiling


def unit_triangular_solve(L, r, turned=False):
    """x with L @ x = r, or L.T @ x = r: `linalg.solve` for L with ones on its diagonal.

    L (..., C, C), nothing above the diagonal, r (..., C, w).
    """
    if not compiling.runs_on(L, r) or L.shape[-1] > 64:  # the room that the kernel has
        return NotImplemented
    L, r = compiling.contiguous(L, r)
    x, (*systems, C, width) = array_module(r).empty_like(r), r.shape
    grid, block = (math.prod(systems),), (min(256, -(-max(1, width) // 32) * 32),)
    arguments = L, r, x, C, width, int(turned)
    compiling.launch("triangular.unit_triangular_solve", grid, block, *arguments)
    return x
