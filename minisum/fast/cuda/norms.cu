// Layer norm, a block of threads a token.

template <typename T>
__global__ void layer_norm(const T* x, const T* gain, const T* bias, T eps, T* y, T* mean, T* r,
                           int d) {
    __shared__ T shared[8];
    const T* row = x + (long long)blockIdx.x * d;
    T sum = 0, squares = 0;
    for (int c = threadIdx.x; c < d; c += blockDim.x) sum += row[c];
    T centre = block_sum(sum, shared) / d;
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        T distance = row[c] - centre;
        squares += distance * distance;
    }
    T size = 1 / sqrt(block_sum(squares, shared) / d + eps);
    for (int c = threadIdx.x; c < d; c += blockDim.x)
        y[(long long)blockIdx.x * d + c] = (row[c] - centre) * size * gain[c] + bias[c];
    if (threadIdx.x == 0) mean[blockIdx.x] = centre, r[blockIdx.x] = size;
}

template <typename T>
__global__ void layer_norm_back(const T* dy, const T* x, const T* gain, const T* mean, const T* r,
                                T* dx, int d) {
    __shared__ T shared[8];
    long long start = (long long)blockIdx.x * d;
    T centre = mean[blockIdx.x], size = r[blockIdx.x], sum = 0, along = 0;
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        T g = dy[start + c] * gain[c];
        sum += g;
        along += g * (x[start + c] - centre) * size;
    }
    sum = block_sum(sum, shared) / d;
    along = block_sum(along, shared) / d;
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        T normed = (x[start + c] - centre) * size;
        dx[start + c] = size * (dy[start + c] * gain[c] - sum - normed * along);
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
