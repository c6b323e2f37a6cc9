// Layer norm, a block of threads a token, neighbouring channels a thread.

template <typename T, int K>
__global__ void layer_norm(const T* x, const T* gain, const T* bias, T eps, T* y, T* mean, T* r,
                           int d) {
    __shared__ T shared[8];
    const T* row = x + (long long)blockIdx.x * d;
    T sum = 0, squares = 0;
    for (int c = threadIdx.x * K; c < d; c += blockDim.x * K) {
        Pack<T, K> own = read<K>(row + c);
        for (int k = 0; k < K; ++k) sum += own.of[k];
    }
    T centre = block_sum(sum, shared) / d;
    for (int c = threadIdx.x * K; c < d; c += blockDim.x * K) {
        Pack<T, K> own = read<K>(row + c);
        for (int k = 0; k < K; ++k) squares += (own.of[k] - centre) * (own.of[k] - centre);
    }
    T size = 1 / sqrt(block_sum(squares, shared) / d + eps);
    for (int c = threadIdx.x * K; c < d; c += blockDim.x * K) {
        Pack<T, K> own = read<K>(row + c), g = read<K>(gain + c), b = read<K>(bias + c);
        for (int k = 0; k < K; ++k) own.of[k] = (own.of[k] - centre) * size * g.of[k] + b.of[k];
        write<K>(y + (long long)blockIdx.x * d + c, own);
    }
    if (threadIdx.x == 0) mean[blockIdx.x] = centre, r[blockIdx.x] = size;
}

template <typename T, int K>
__global__ void layer_norm_back(const T* dy, const T* x, const T* gain, const T* mean, const T* r,
                                T* dx, int d) {
    __shared__ T shared[8];
    long long start = (long long)blockIdx.x * d;
    T centre = mean[blockIdx.x], size = r[blockIdx.x], sum = 0, along = 0;
    for (int c = threadIdx.x * K; c < d; c += blockDim.x * K) {
        Pack<T, K> g = read<K>(dy + start + c), w = read<K>(gain + c), own = read<K>(x + start + c);
        for (int k = 0; k < K; ++k) {
            sum += g.of[k] * w.of[k];
            along += g.of[k] * w.of[k] * (own.of[k] - centre) * size;
        }
    }
    sum = block_sum(sum, shared) / d;
    along = block_sum(along, shared) / d;
    for (int c = threadIdx.x * K; c < d; c += blockDim.x * K) {
        Pack<T, K> g = read<K>(dy + start + c), w = read<K>(gain + c), own = read<K>(x + start + c);
        for (int k = 0; k < K; ++k)
            own.of[k] = size * (g.of[k] * w.of[k] - sum - (own.of[k] - centre) * size * along);
        write<K>(dx + start + c, own);
    }
}

// A thread a channel and stretch of tokens: its share of dgain and, behind those, of dbias.
template <typename T>
__global__ void layer_norm_back_gains(const T* dy, const T* x, const T* mean, const T* r,
                                      T* shares, int tokens, int d, int stretch) {
    int c = blockIdx.y * blockDim.x + threadIdx.x, s = blockIdx.x;
    if (c >= d) return;
    T dgain = 0, dbias = 0;
    int end = min(tokens, (s + 1) * stretch);
    #pragma unroll 4
    for (int t = s * stretch; t < end; ++t) {
        T g = dy[(long long)t * d + c];
        dgain += g * (x[(long long)t * d + c] - mean[t]) * r[t];
        dbias += g;
    }
    shares[((long long)s * 2) * d + c] = dgain;
    shares[((long long)s * 2 + 1) * d + c] = dbias;
}
