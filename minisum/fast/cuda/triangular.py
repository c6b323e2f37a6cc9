"""Many small triangular systems: a block of threads a system, a thread a right-hand side."""

import math

from minisum.backend import array_module
from minisum.fast.cuda.compiling import launch

_SOURCE = r"""
template <typename T>
__global__ void unit_triangular_solve(const T* L, const T* r, T* x, int C, int width,
                                      int transposed) {
    __shared__ T rows[64 * 64];
    const T* matrix = L + (long long)blockIdx.x * C * C;
    for (int i = threadIdx.x; i < C * C; i += blockDim.x) rows[i] = matrix[i];
    __syncthreads();
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
        const T* right = r + (long long)blockIdx.x * C * width + c;
        T* solved = x + (long long)blockIdx.x * C * width + c;
        T known[64];  // in registers, since all loops over it are unrolled
        #pragma unroll
        for (int step = 0; step < 64; ++step) {
            if (step >= C) continue;
            int i = transposed ? C - 1 - step : step;
            T sum = right[(long long)i * width];
            #pragma unroll
            for (int done = 0; done < step; ++done) {
                int j = transposed ? C - 1 - done : done;
                sum -= rows[transposed ? j * C + i : i * C + j] * known[done];
            }
            known[step] = sum;
            solved[(long long)i * width] = sum;
        }
    }
}
"""
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
    launch(_SOURCE, "unit_triangular_solve", r.dtype, grid, block, L, r, x, *sizes)
    return x
