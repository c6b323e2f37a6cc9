// What several kernels need: neighbouring numbers at once, sums and maxima over a block.

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

// The nearest bfloat16, the upper half of a float32, to even at a tie.
__device__ unsigned short bfloat16(float x) {
    unsigned bits = __float_as_uint(x);
    return x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0;
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
