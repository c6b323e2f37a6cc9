// Many small triangular systems: a block of threads a system, a thread a right-hand side.

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
