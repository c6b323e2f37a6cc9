// One pass over an array where the textbook takes several.

// y = max(x, 0), and where x > 0. A NaN stays.
template <typename T, int K>
__global__ void relu(const T* x, T* y, bool* positive, int packs) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= packs) return;
    Pack<T, K> from = read<K>(x + (long long)i * K);
    Pack<bool, K> sign;
    for (int k = 0; k < K; ++k) {
        sign.of[k] = from.of[k] > 0;
        from.of[k] = from.of[k] <= 0 ? (T)0 : from.of[k];
    }
    write<K>(y + (long long)i * K, from);
    write<K>(positive + (long long)i * K, sign);
}

template <typename T, int K>
__global__ void relu_back(const T* dy, const bool* positive, T* dx, int packs) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= packs) return;
    Pack<T, K> g = read<K>(dy + (long long)i * K);
    Pack<bool, K> sign = read<K>(positive + (long long)i * K);
    for (int k = 0; k < K; ++k) g.of[k] *= sign.of[k];
    write<K>(dx + (long long)i * K, g);
}

// Each row of x (rows, columns) += b.
template <typename T, int K>
__global__ void add_bias(T* x, const T* b, int packs, int columns) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= packs) return;
    Pack<T, K> sum = read<K>(x + (long long)i * K), more = read<K>(b + (long long)i * K % columns);
    for (int k = 0; k < K; ++k) sum.of[k] += more.of[k];
    write<K>(x + (long long)i * K, sum);
}

// x + scale y
template <typename T, int K>
__global__ void add_scaled(const T* x, const T* y, T* sum, int packs, T scale) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= packs) return;
    Pack<T, K> a = read<K>(x + (long long)i * K), b = read<K>(y + (long long)i * K);
    for (int k = 0; k < K; ++k) a.of[k] += scale * b.of[k];
    write<K>(sum + (long long)i * K, a);
}

template <typename T, int K>
__global__ void to_bfloat16(const T* x, unsigned short* y, int packs) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= packs) return;
    Pack<T, K> from = read<K>(x + (long long)i * K);
    Pack<unsigned short, K> to;
    for (int k = 0; k < K; ++k) to.of[k] = bfloat16(from.of[k]);
    write<K>(y + (long long)i * K, to);
}
