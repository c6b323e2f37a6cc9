// Softmax, a block of threads a row: once before a loss, once inside attention.

template <int K, typename T>
__device__ Pack<T, K> read_logits(const T* row, const T* bias, int c) {
    Pack<T, K> logit = read<K>(row + c);
    if (!bias) return logit;
    Pack<T, K> shift = read<K>(bias + c);
    for (int k = 0; k < K; ++k) logit.of[k] += shift.of[k];
    return logit;
}

template <typename T>
__device__ T minus_infinity() { return -(T)__int_as_float(0x7f800000); }

// Takes in more scores: top is the largest so far, and sum that of all exp(score - top).
template <int K, typename T>
__device__ void add_scores(Pack<T, K> scores, T& top, T& sum) {
    T before = top;
    for (int k = 0; k < K; ++k) top = larger(top, scores.of[k]);
    if (top == minus_infinity<T>()) return;
    if (top != before) sum *= exp(before - top);
    for (int k = 0; k < K; ++k) sum += exp(scores.of[k] - top);
}

// From each thread's top and sum those of the block; the sum is 0 if no score is finite.
template <typename T>
__device__ void over_block(T& top, T& sum, T* shared) {
    T own = top;
    top = block_max(top, shared);
    if (top == minus_infinity<T>()) top = 0;
    sum = block_sum(sum * exp(own - top), shared);
}

// The loss of each row, and dscores = (softmax(scores + bias) - onehot(target)) * scale, 0 where the
// target is ignored, which may take the place of the scores, or be `rounded` to bfloat16.
template <typename T, int K>
__global__ void loss_and_dscores(const T* scores, const T* bias, const int* targets,
                                 const T* scale, T* losses, T* dscores, unsigned short* rounded,
                                 int C, int ignore) {
    __shared__ T shared[8];
    const T* row = scores + (long long)blockIdx.x * C;
    int target = targets[blockIdx.x];
    // Read before dscores are written, which may be the scores.
    T own = target == ignore ? (T)0 : read_logits<1>(row, bias, target).of[0];
    T top = minus_infinity<T>(), sum = 0;
    #pragma unroll 4
    for (int c = threadIdx.x * K; c < C; c += blockDim.x * K)
        add_scores(read_logits<K>(row, bias, c), top, sum);
    over_block(top, sum, shared);
    T share = *scale / sum;
    #pragma unroll 4
    for (int c = threadIdx.x * K; c < C; c += blockDim.x * K) {
        Pack<T, K> logit = read_logits<K>(row, bias, c);
        Pack<unsigned short, K> bits;
        for (int k = 0; k < K; ++k) {
            T d = exp(logit.of[k] - top) * share - (c + k == target ? *scale : (T)0);
            logit.of[k] = target == ignore ? (T)0 : d;  // whatever stands there, NaN too
            bits.of[k] = bfloat16(logit.of[k]);
        }
        if (rounded) write<K>(rounded + (long long)blockIdx.x * C + c, bits);
        else write<K>(dscores + (long long)blockIdx.x * C + c, logit);
    }
    if (threadIdx.x == 0) losses[blockIdx.x] = target == ignore ? (T)0 : log(sum) + top - own;
}

// Scaled scores of the keys from j on, minus_infinity() where one may not be seen.
template <int K, typename T>
__device__ Pack<T, K> read_scores(const T* row, const bool* real, int last, T scale, int j) {
    Pack<T, K> score = read<K>(row + j);
    Pack<bool, K> seen = {};
    if (real) seen = read<K>(real + j);
    for (int k = 0; k < K; ++k) {
        bool visible = j + k <= last && (!real || seen.of[k]);
        score.of[k] = visible ? scale * score.of[k] : minus_infinity<T>();
    }
    return score;
}

// A row is the scores of one query, in blocks of H * n rows a text. Turned into weights in place.
template <typename T, int K>
__global__ void attention_weights(T* scores, const bool* mask, T scale, int causal, int H, int n,
                                  int m) {
    __shared__ T shared[8];
    T* row = scores + (long long)blockIdx.x * m;
    const bool* real = mask ? mask + (long long)(blockIdx.x / (H * n)) * m : nullptr;
    int last = causal ? (int)(blockIdx.x % n) + m - n : m - 1;
    T top = minus_infinity<T>(), sum = 0;
    #pragma unroll 4
    for (int j = threadIdx.x * K; j < m; j += blockDim.x * K)
        add_scores(read_scores<K>(row, real, last, scale, j), top, sum);
    over_block(top, sum, shared);
    T share = sum == 0 ? (T)1 : 1 / sum;
    #pragma unroll 4
    for (int j = threadIdx.x * K; j < m; j += blockDim.x * K) {
        Pack<T, K> weight = read_scores<K>(row, real, last, scale, j);
        for (int k = 0; k < K; ++k) weight.of[k] = exp(weight.of[k] - top) * share;
        write<K>(row + j, weight);
    }
}

template <typename T, int K>
__global__ void attention_weights_back(T* dp, const T* p, T scale, int m) {
    __shared__ T shared[8];
    T* row = dp + (long long)blockIdx.x * m;
    const T* weights = p + (long long)blockIdx.x * m;
    T inner = 0;
    #pragma unroll 4
    for (int j = threadIdx.x * K; j < m; j += blockDim.x * K) {
        Pack<T, K> g = read<K>(row + j), weight = read<K>(weights + j);
        for (int k = 0; k < K; ++k) inner += g.of[k] * weight.of[k];
    }
    inner = block_sum(inner, shared);
    #pragma unroll 4
    for (int j = threadIdx.x * K; j < m; j += blockDim.x * K) {
        Pack<T, K> g = read<K>(row + j), weight = read<K>(weights + j);
        for (int k = 0; k < K; ++k) g.of[k] = weight.of[k] * (g.of[k] - inner) * scale;
        write<K>(row + j, g);
    }
}
