"""From CUDA C++ to a function of Python."""

from functools import cache

import numpy as np

from minisum.backend import array_module
from minisum.fast import one_real_type

# Vectorized loads and stores: neighbouring numbers that a thread reads or writes at once. Four in
# float32 are 16 bytes, the most that one instruction moves (in float64 it takes two).
PACK = 4

# What several kernels need: neighbouring numbers at once, sums and maxima over a block's threads.
SHARED = r"""
template <typename T, int K>
struct alignas(K * sizeof(T)) Pack { T of[K]; };

template <int K, typename T>
__device__ Pack<T, K> read(const T* from) { return *reinterpret_cast<const Pack<T, K>*>(from); }

template <int K, typename T>
__device__ void write(T* to, Pack<T, K> pack) { *reinterpret_cast<Pack<T, K>*>(to) = pack; }

// to += pack, whatever other threads add there.
template <int K, typename T>
__device__ void add(T* to, Pack<T, K> pack) {
#if __CUDA_ARCH__ >= 900  // from the H100 on, four at a time
    if constexpr (K == 4 && sizeof(T) == 4) {
        const float4 four = {pack.of[0], pack.of[1], pack.of[2], pack.of[3]};
        atomicAdd(reinterpret_cast<float4*>(to), four);
    } else
#endif
    for (int k = 0; k < K; ++k) atomicAdd(to + k, pack.of[k]);
}

// The sum of every thread's value, in every thread. `shared` holds a number a warp of threads.
template <typename T>
__device__ T block_sum(T value, T* shared) {
    for (int apart = 16; apart; apart /= 2) value += __shfl_xor_sync(~0u, value, apart);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    value = shared[0];
    for (int warp = 1; warp < blockDim.x / 32; ++warp) value += shared[warp];
    return value;
}

// The largest; a NaN counts as larger than anything.
template <typename T>
__device__ T larger(T a, T b) { return b > a || b != b ? b : a; }

template <typename T>
__device__ T block_max(T value, T* shared) {
    for (int apart = 16; apart; apart /= 2)
        value = larger(value, __shfl_xor_sync(~0u, value, apart));
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    value = shared[0];
    for (int warp = 1; warp < blockDim.x / 32; ++warp) value = larger(value, shared[warp]);
    return value;
}
"""


def runs_on(*arrays):
    """Whether the kernels can take these arrays: on a GPU, all of one of the two types.

    None stands for no array.
    """
    on_device = all(array_module(a) is not np for a in arrays if a is not None)
    return on_device and one_real_type(*arrays)


@cache
def compiled(source, name, dtype, pack):
    """The kernel `name` of a source for one type. Compiling takes a moment, once."""
    import cupy

    number = {"float32": "float", "float64": "double"}[dtype]
    symbol = f"{name}<{number}, {pack}>" if pack else f"{name}<{number}>"
    code = SHARED + source
    module = cupy.RawModule(code=code, options=("-std=c++17",), name_expressions=[symbol])
    return module.get_function(symbol)


def launch(source, name, dtype, grid, block, *arguments, pack=None):
    """Run a kernel. Numbers are passed as int32 if they are integers, else as `dtype`.

    None stands for no array. pack: a kernel's numbers a thread, see `packing`. A grid without
    blocks is nothing to do. ValueError for an array with gaps, in another order or of another type,
    which a kernel would misread.
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


@cache
def dummy_array(dtype):
    """An array of one zero, for a kernel's argument that is not read or does nothing."""
    import cupy

    return cupy.zeros(1, dtype)


def threads_for(width):
    """Threads of a block that works on a row: whole warps, as the sums over a block need."""
    return 32 if width <= 64 else 128 if width <= 1024 else 256
