// The two ends of direct summation. A thread a channel, or four neighbouring ones.
//
// Texts are packed: row i of an array (N, d) belongs to token kept[i] of the B * n, counted through,
// or to none if that is -1; and token t of text b has row rows[b * n + t], or none if that is -1.
// Without `kept` and `rows` every token has its row.

// y[i] = table[ids[kept[i]]] * (positions + offset), or 0; rows (all -1 before) are told of i.
template <typename T, int K>
__global__ void embed_modulate(const int* ids, const int* kept, const T* table, const T* positions,
                               T offset, T* y, int* rows, int N, int n, int d) {
    int i = blockIdx.x * blockDim.y + threadIdx.y;
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * K;
    if (i >= N || c >= d) return;
    int token = kept ? kept[i] : i;
    Pack<T, K> word = {};
    if (token >= 0) {
        Pack<T, K> factor = read<K>(positions + (long long)(token % n) * d + c);
        word = read<K>(table + (long long)ids[token] * d + c);
        for (int k = 0; k < K; ++k) word.of[k] *= factor.of[k] + offset;
        if (rows && c == 0) rows[token] = i;
    }
    write<K>(y + (long long)i * d + c, word);
}

// With dword the sum of dy over the places of a word where positions are p, and word its vector:
// dtable += dword * (p + offset) and dpositions[p] += dword * word. A thread a position and
// channels, which meets the words there of some of the texts, equal ones one after the other: their
// gradient is one addition then. Threads that add to one place wait for each other, and all texts
// share their frequent words.
template <typename T, int K>
__global__ void embed_modulate_back(const T* dy, const int* ids, const int* rows, const T* table,
                                    const T* positions, T offset, T* dtable, T* dpositions, int B,
                                    int n, int d, int texts) {
    __shared__ int words[32][32], order[32][32], row[32][32];
    const int none = 0x7fffffff;  // behind all words
    int t = blockIdx.x * blockDim.y + threadIdx.y, y = threadIdx.y;
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * K;
    int first = blockIdx.z * texts, count = t < n ? min(B - first, texts) : 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        int token = (first + i) * n + t;
        row[y][i] = rows ? rows[token] : token;
        words[y][i] = row[y][i] < 0 ? none : ids[token];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        int rank = 0, id = words[y][i];
        for (int j = 0; j < count; ++j)
            rank += words[y][j] < id || (words[y][j] == id && j < i);
        order[y][rank] = i;
    }
    __syncthreads();
    if (t >= n || c >= d) return;
    Pack<T, K> factor = read<K>(positions + (long long)t * d + c), dword = {}, dposition = {};
    for (int k = 0; k < K; ++k) factor.of[k] += offset;
    for (int i = 0; i < count; ++i) {
        int text = order[y][i], id = words[y][text];
        if (id == none) break;
        Pack<T, K> g = read<K>(dy + (long long)row[y][text] * d + c);
        for (int k = 0; k < K; ++k) dword.of[k] += g.of[k];
        if (i + 1 < count && words[y][order[y][i + 1]] == id) continue;
        Pack<T, K> word = read<K>(table + (long long)id * d + c);
        bool any = false;
        for (int k = 0; k < K; ++k) {
            any = any || dword.of[k] != 0;
            dposition.of[k] += dword.of[k] * word.of[k];
            dword.of[k] *= factor.of[k];
        }
        if (any && dtable) add<K>(dtable + (long long)id * d + c, dword);
        dword = {};
    }
    if (dpositions) add<K>(dpositions + (long long)t * d + c, dposition);
}

// y[s, b, c] = sum of max(x[row, c], 0) over the rows of the tokens of stretch s, and where x > 0.
template <typename T, int K>
__global__ void relu_sum(const T* x, const int* rows, T* y, bool* positive, int B, int n, int d,
                         int stretch) {
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * K, b = blockIdx.x, s = blockIdx.z;
    int end = min(n, (s + 1) * stretch);
    Pack<T, K> sum = {};
    if (c < d) {
        // All loads without a branch before them, so that four are under way at a time: a token
        // without a row reads the first one, and does not count.
        #pragma unroll 4
        for (int t = s * stretch + threadIdx.y; t < end; t += blockDim.y) {
            int token = b * n + t, row = rows ? rows[token] : token;
            long long place = (long long)max(row, 0) * d + c;
            Pack<T, K> value = read<K>(x + place);
            Pack<bool, K> sign;
            for (int k = 0; k < K; ++k) {
                sign.of[k] = value.of[k] > 0;
                sum.of[k] += row >= 0 && !(value.of[k] <= 0) ? value.of[k] : (T)0;  // a NaN stays
            }
            if (row >= 0) write<K>(positive + place, sign);
        }
    }
    __shared__ Pack<T, K> lanes[8][64];
    lanes[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < d) {
        for (int lane = 1; lane < 8; ++lane)
            for (int k = 0; k < K; ++k) sum.of[k] += lanes[lane][threadIdx.x].of[k];
        write<K>(y + ((long long)s * B + b) * d + c, sum);
    }
}

template <typename T, int K>
__global__ void relu_sum_back(const T* dy, const int* kept, const bool* positive, T* dx, int N,
                              int n, int d) {
    int i = blockIdx.x * blockDim.y + threadIdx.y;
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * K;
    if (i >= N || c >= d) return;
    int token = kept ? kept[i] : i;
    long long place = (long long)i * d + c;
    Pack<T, K> g = {};
    if (token >= 0) {
        Pack<bool, K> sign = read<K>(positive + place);
        g = read<K>(dy + (long long)(token / n) * d + c);
        for (int k = 0; k < K; ++k) g.of[k] = sign.of[k] ? g.of[k] : (T)0;
    }
    write<K>(dx + place, g);
}
