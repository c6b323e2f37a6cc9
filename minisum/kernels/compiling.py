"""From CUDA C++ to a function of Python."""

from functools import cache

import numpy as np

from minisum.backend import array_module

# What several kernels need: sums and maxima over the threads of a block.
SHARED = r"""
// The sum of every thread's value, in every thread. `shared` holds a number a thread.
template <typename T>
__device__ T block_sum(T value, T* shared) {
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}

// The largest; a NaN counts as larger than anything.
template <typename T>
__device__ T larger(T a, T b) { return b > a || b != b ? b : a; }

template <typename T>
__device__ T block_max(T value, T* shared) {
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half)
            shared[threadIdx.x] = larger(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    return shared[0];
}
"""


def runs_on(*arrays):
    """Whether the kernels can take these arrays: on a GPU, all of one of the two types."""
    if any(array_module(a) is np for a in arrays):
        return False
    return {a.dtype.name for a in arrays} in ({"float32"}, {"float64"})


@cache
def compiled(source, name, dtype):
    """The kernel `name` of a source for one type. Compiling takes a moment, once."""
    import cupy

    symbol = f"{name}<{ {'float32': 'float', 'float64': 'double'}[dtype] }>"
    code = SHARED + source
    module = cupy.RawModule(code=code, options=("-std=c++17",), name_expressions=[symbol])
    return module.get_function(symbol)


def launch(source, name, dtype, grid, block, *arguments):
    """Run a kernel. Numbers are passed as int32 if they are integers, else as `dtype`.

    None stands for no array. A grid without blocks is nothing to do. ValueError for an array with
    gaps, in another order or of another type, which a kernel would misread.
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
    compiled(source, name, np.dtype(dtype).name)(grid, block, tuple(passed))


@cache
def nothing(dtype):
    """An array of one zero, for a kernel's argument that is not read or does nothing."""
    import cupy

    return cupy.zeros(1, dtype)


def threads_for(width):
    """Threads of a block that works on a row: a power of two, as the sums over a block need."""
    return 32 if width <= 64 else 128 if width <= 1024 else 256
