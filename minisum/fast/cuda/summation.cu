// The two ends of direct summation. A thread a channel, or four neighbouring ones.

template <typename T, int K>
__global__ void embed_modulate(const int* ids, const T* table, const T* positions, T offset, T* y,
                               int tokens, int n, int d) {
    int token = blockIdx.x * blockDim.y + threadIdx.y;
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * K;
    if (token >= tokens || c >= d) return;
    Pack<T, K> factor = read<K>(positions + (long long)(token % n) * d + c);
    Pack<T, K> word = read<K>(table + (long long)ids[token] * d + c);
    for (int k = 0; k < K; ++k) word.of[k] *= factor.of[k] + offset;
    write<K>(y + (long long)token * d + c, word);
}

// shares[s, t] = sum of dy[b, t] * table[ids[b, t]] over the texts b of share s.
template <typename T, int K>
__global__ void positions_back(const T* dy, const int* ids, const T* table, T* shares, int B,
                               int n, int d, int texts) {
    int t = blockIdx.x * blockDim.y + threadIdx.y;
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * K;
    if (t >= n || c >= d) return;
    int first = blockIdx.z * texts, end = min(B, first + texts);
    Pack<T, K> sum = {};
    #pragma unroll 4
    for (int text = first; text < end; ++text) {
        long long token = (long long)text * n + t;
        Pack<T, K> g = read<K>(dy + token * d + c);
        Pack<T, K> word = read<K>(table + (long long)ids[token] * d + c);
        for (int k = 0; k < K; ++k) sum.of[k] += g.of[k] * word.of[k];
    }
    write<K>(shares + ((long long)blockIdx.z * n + t) * d + c, sum);
}

// dtable[ids] += dy * (positions + offset). A thread a position and channels, which meets the words
// there of some of the texts, equal ones one after the other: their gradient is one addition then.
// Threads that add to one place wait for each other, and all texts share their frequent words.
template <typename T, int K>
__global__ void words_back(const T* dy, const int* ids, const T* positions, T offset, T* dtable,
                           int B, int n, int d, int texts) {
    __shared__ int words[32][32], order[32][32];
    int t = blockIdx.x * blockDim.y + threadIdx.y, y = threadIdx.y;
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * K;
    int first = blockIdx.z * texts, count = t < n ? min(B - first, texts) : 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x)
        words[y][i] = ids[(long long)(first + i) * n + t];
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        int rank = 0, id = words[y][i];
        for (int j = 0; j < count; ++j)
            rank += words[y][j] < id || (words[y][j] == id && j < i);
        order[y][rank] = i;
    }
    __syncthreads();
    if (t >= n || c >= d) return;
    Pack<T, K> factor = read<K>(positions + (long long)t * d + c), dword = {};
    for (int k = 0; k < K; ++k) factor.of[k] += offset;
    bool any = false;
    for (int i = 0; i < count; ++i) {
        int text = order[y][i], id = words[y][text];
        Pack<T, K> g = read<K>(dy + ((long long)(first + text) * n + t) * d + c);
        for (int k = 0; k < K; ++k) {
            any = any || g.of[k] != 0;
            dword.of[k] += g.of[k] * factor.of[k];
        }
        if (i + 1 < count && words[y][order[y][i + 1]] == id) continue;
        if (any) add<K>(dtable + (long long)id * d + c, dword);
        dword = {};
        any = false;
    }
}

// y[s, b, c] = sum of max(x[b, t, c], 0) over the real tokens t of stretch s, and where x > 0.
template <typename T, int K>
__global__ void relu_sum(const T* x, const bool* mask, T* y, bool* positive, int B, int n, int d,
                         int stretch) {
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * K, b = blockIdx.x, s = blockIdx.z;
    int end = min(n, (s + 1) * stretch);
    Pack<T, K> sum = {};
    if (c < d) {
        long long column = (long long)b * n * d + c;
        // All loads without a branch before them, so that four are under way at a time.
        #pragma unroll 4
        for (int t = s * stretch + threadIdx.y; t < end; t += blockDim.y) {
            Pack<T, K> value = read<K>(x + column + (long long)t * d);
            bool real = !mask || mask[(long long)b * n + t];
            Pack<bool, K> sign;
            for (int k = 0; k < K; ++k) {
                sign.of[k] = real && value.of[k] > 0;
                sum.of[k] += real && !(value.of[k] <= 0) ? value.of[k] : (T)0;  // a NaN stays
            }
            write<K>(positive + column + (long long)t * d, sign);
        }
    }
    __shared__ Pack<T, K> rows[8][64];
    rows[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < d) {
        for (int lane = 1; lane < 8; ++lane)
            for (int k = 0; k < K; ++k) sum.of[k] += rows[lane][threadIdx.x].of[k];
        write<K>(y + ((long long)s * B + b) * d + c, sum);
    }
}

template <typename T, int K>
__global__ void relu_sum_back(const T* dy, const bool* positive, T* dx, int tokens, int n, int d) {
    int token = blockIdx.x * blockDim.y + threadIdx.y;
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * K;
    if (token >= tokens || c >= d) return;
    long long i = (long long)token * d + c;
    Pack<bool, K> sign = read<K>(positive + i);
    Pack<T, K> g = read<K>(dy + (long long)(token / n) * d + c);
    for (int k = 0; k < K; ++k) g.of[k] = sign.of[k] ? g.of[k] : (T)0;
    write<K>(dx + i, g);
}
