// Attention that never writes its weights: Dao 2023, "FlashAttention-2", on tensor cores.
//
// Arrays are (B, n, H, h), as a linear layer gives them, h at most D and a multiple of 8. A warp of
// 32 threads has ROWS rows of the scores: queries, or in the gradients of keys and values keys. A
// block goes through the other tokens a tile at a time, in shared memory. Scores are made eight
// columns at a time, in the registers of the warp.

const int ROWS = 16, WARPS = 4;
const float LOG2E = 1.4426950408889634f;

// Tokens of a tile: two tiles are what shared memory holds, 35 KB of floats.
template <int D> constexpr int TILE = D > 64 ? 32 : 64;

enum { TF32, BF16 };

// Eights of scores that are made side by side on the way back: as many as there are registers for.
template <int P> constexpr int SIDE = P == BF16 ? 4 : 2;

__device__ unsigned tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

__device__ unsigned two_bf16(float low, float high) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

__device__ void multiply_tf32(float* c, const unsigned* a, const unsigned* b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};" : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ void multiply_bf16(float* c, const unsigned* a, unsigned b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%0,%1,%2,%3};" : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
}

// A thread's part of a factor of 16 rows and 8 columns: two neighbours in row g = lane / 4, two in
// row g + 8. Which two columns they are, of the four pairs, is up to the caller, as a sum may be
// taken in any order: the other factor then has to have the same two.
template <int P>
struct Left {
    unsigned bits[P == BF16 ? 2 : 4];

    __device__ Left() {}
    __device__ Left(float a, float b, float below_a, float below_b) {
        if constexpr (P == BF16) {
            bits[0] = two_bf16(a, b), bits[1] = two_bf16(below_a, below_b);
        } else {
            const float order[4] = {a, below_a, b, below_b};
            for (int i = 0; i < 4; ++i) bits[i] = tf32(order[i]);
        }
    }
};

// The other factor: two rows of a column g, in bfloat16 as a pair.
template <int P>
struct Right {
    unsigned bits[P == BF16 ? 1 : 2];
};

// c (16, 8) += left (16, 8) @ right (8, 8).
template <int P>
__device__ void multiply(float* c, const Left<P>& left, const Right<P>& right) {
    if constexpr (P == BF16) {
        multiply_bf16(c, left.bits, right.bits[0]);
    } else {
        multiply_tf32(c, left.bits, right.bits);
    }
}

// Where the tokens of one head of one text are, and their number.
struct Tokens {
    long long start;
    int step, count, h;

    __device__ Tokens(int text, int head, int count, int H, int h)
        : start(((long long)text * count * H + head) * h), step(H * h), count(count), h(h) {}
    __device__ long long at(int token, int c) const { return start + (long long)token * step + c; }
    __device__ bool has(int token, int c) const { return token < count && c < h; }
};

// Rows `row` and `row` + 8 of x, a thread's part of them: two columns of each eight, neighbours in
// bfloat16, which is read in pairs.
template <int D, int P>
__device__ void read_rows(Left<P>* rows, const float* x, Tokens tokens, int row) {
    int t = threadIdx.x % 4, first = P == BF16 ? 2 * t : t, apart = P == BF16 ? 1 : 4;
    #pragma unroll
    for (int i = 0; i < D / 8; ++i) {
        float found[4];
        for (int j = 0; j < 4; ++j) {
            int token = row + j / 2 * 8, c = 8 * i + first + j % 2 * apart;
            found[j] = tokens.has(token, c) ? x[tokens.at(token, c)] : 0;
        }
        rows[i] = Left<P>(found[0], found[1], found[2], found[3]);
    }
}

// TILE tokens in shared memory. The rows of a product may be channels, that is neighbours in a token,
// or tokens, neighbours in a channel: pairs of bfloat16 are kept both ways. Row lengths are such that
// the threads of a warp read from 32 banks.
template <int D, int P>
struct Tile {
    static const int ACROSS = TILE<D> * (D / 2 + 4);  // where the pairs of tokens begin
    unsigned words[P == BF16 ? ACROSS + TILE<D> / 2 * (D + 8) : TILE<D> * (D + 4)];

    // Tokens first, first + 1, ... of x, zeros for those that do not count.
    __device__ void read_from(const float* x, Tokens tokens, int first, const bool* real) {
        for (int i = threadIdx.x; i < TILE<D> / 2 * D / 4; i += blockDim.x) {
            int row = i / (D / 4) * 2, c = i % (D / 4) * 4;
            Pack<float, 4> two[2] = {};
            for (int r = 0; r < 2; ++r) {
                int token = first + row + r;
                if (tokens.has(token, c) && (!real || real[token]))
                    two[r] = read<4>(x + tokens.at(token, c));
            }
            keep(two, row, c);
        }
    }

    __device__ void keep(const Pack<float, 4>* two, int row, int c) {
        Pack<unsigned, 4> bits;
        if constexpr (P == BF16) {
            for (int k = 0; k < 4; ++k) bits.of[k] = two_bf16(two[0].of[k], two[1].of[k]);
            write<4>(words + ACROSS + row / 2 * (D + 8) + c, bits);
        }
        for (int r = 0; r < 2; ++r) {
            if constexpr (P == BF16) {
                const Pack<unsigned, 2> pairs = {two_bf16(two[r].of[0], two[r].of[1]),
                                                 two_bf16(two[r].of[2], two[r].of[3])};
                write<2>(words + (row + r) * (D / 2 + 4) + c / 2, pairs);
            } else {
                for (int k = 0; k < 4; ++k) bits.of[k] = tf32(two[r].of[k]);
                write<4>(words + (row + r) * (D + 4) + c, bits);
            }
        }
    }

    // Of the i-th eight channels those that `read_rows` gives this thread, in token `first` + g.
    __device__ Right<P> channels(int first, int i) const {
        int token = first + threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        if constexpr (P == BF16) {
            return {words[token * (D / 2 + 4) + 4 * i + t]};
        } else {
            const unsigned* own = words + token * (D + 4) + 8 * i + t;
            return {own[0], own[4]};
        }
    }

    // Tokens `first` + 2t and `first` + 2t + 1 in the i-th eight's channel g.
    __device__ Right<P> tokens(int first, int i) const {
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        if constexpr (P == BF16) {
            return {words[ACROSS + (first / 2 + t) * (D + 8) + 8 * i + g]};
        } else {
            const unsigned* own = words + (first + 2 * t) * (D + 4) + 8 * i + g;
            return {own[0], own[D + 4]};
        }
    }
};

// rows (16, D) @ (8 N tokens of a tile).T, N times 16 by 8 scores: c[0] and c[1] are in row g,
// columns 2t and 2t + 1, the others in row g + 8. A product waits for the one before it that adds
// to the same scores, hence several side by side.
template <int D, int P, int N>
__device__ void scores_of(float (*scores)[4], const Left<P>* rows, const Tile<D, P>& tile,
                          int first) {
    #pragma unroll
    for (int j = 0; j < N; ++j) scores[j][0] = scores[j][1] = scores[j][2] = scores[j][3] = 0;
    #pragma unroll
    for (int i = 0; i < D / 8; ++i)
        #pragma unroll
        for (int j = 0; j < N; ++j) multiply<P>(scores[j], rows[i], tile.channels(first + 8 * j, i));
}

// sums (16, D) += weights (16, 8), laid out like scores, @ 8 tokens of a tile.
template <int D, int P>
__device__ void add_weighted(float (*sums)[4], const float* weights, const Tile<D, P>& tile,
                             int first) {
    Left<P> left(weights[0], weights[1], weights[2], weights[3]);
    #pragma unroll
    for (int i = 0; i < D / 8; ++i) multiply<P>(sums[i], left, tile.tokens(first, i));
}

template <int D>
__device__ void write_rows(float* y, float (*sums)[4], Tokens tokens, int row) {
    int t = threadIdx.x % 4;
    #pragma unroll
    for (int i = 0; i < D / 8; ++i)
        for (int j = 0; j < 4; ++j) {
            int token = row + j / 2 * 8, c = 8 * i + 2 * t + j % 2;
            if (tokens.has(token, c)) y[tokens.at(token, c)] = sums[i][j];
        }
}

__device__ float minus_infinity() { return -__int_as_float(0x7f800000); }

// Over the four threads that have parts of the same rows.
__device__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ float row_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

// y = softmax(scale q @ k.T) @ v, and of each query, (B, H, n), log Σ exp(scale q @ k.T).
template <typename T, int D, int P>
__global__ void __launch_bounds__(32 * WARPS)
attention_forward(const T* q, const T* k, const T* v, const bool* mask, T* y, T* logs, T scale,
                  int causal, int H, int n, int m, int h) {
    __shared__ __align__(16) Tile<D, P> keys, values;
    const int head = blockIdx.y, text = blockIdx.z, t = threadIdx.x % 4;
    // The last queries, which see the most keys, go first.
    const int first = (gridDim.x - 1 - blockIdx.x) * ROWS * WARPS;
    const int row = first + threadIdx.x / 32 * ROWS + threadIdx.x % 32 / 4;
    const bool* real = mask ? mask + (long long)text * m : nullptr;
    Tokens asking(text, head, n, H, h), asked(text, head, m, H, h);
    Left<P> queries[D / 8];
    read_rows<D, P>(queries, q, asking, row);
    float sums[D / 8][4] = {}, top[2], sum[2] = {};
    top[0] = top[1] = minus_infinity();
    const int seen = causal ? min(m, first + ROWS * WARPS + m - n) : m;
    for (int start = 0; start < seen; start += TILE<D>) {
        __syncthreads();
        keys.read_from(k, asked, start, real);
        values.read_from(v, asked, start, real);
        __syncthreads();
        float scores[TILE<D> / 8][4], before[2] = {top[0], top[1]};
        scores_of<D, P, TILE<D> / 8>(scores, queries, keys, 0);
        #pragma unroll
        for (int j = 0; j < TILE<D> / 8; ++j) {
            for (int i = 0; i < 4; ++i) {
                int key = start + 8 * j + 2 * t + i % 2, last = row + i / 2 * 8 + m - n;
                bool visible = key < m && (!causal || key <= last) && (!real || real[key]);
                scores[j][i] = visible ? scores[j][i] * (scale * LOG2E) : minus_infinity();
                top[i / 2] = fmaxf(top[i / 2], scores[j][i]);
            }
        }
        float base[2];
        for (int r = 0; r < 2; ++r) {
            top[r] = row_max(top[r]);
            base[r] = top[r] == minus_infinity() ? 0 : top[r];
            float shrink = exp2f(before[r] - base[r]);
            sum[r] *= shrink;
            #pragma unroll
            for (int i = 0; i < D / 8; ++i) sums[i][2 * r] *= shrink, sums[i][2 * r + 1] *= shrink;
        }
        #pragma unroll
        for (int j = 0; j < TILE<D> / 8; ++j) {
            for (int i = 0; i < 4; ++i) {
                scores[j][i] = exp2f(scores[j][i] - base[i / 2]);
                sum[i / 2] += scores[j][i];
            }
            add_weighted<D, P>(sums, scores[j], values, 8 * j);
        }
    }
    for (int r = 0; r < 2; ++r) {
        sum[r] = row_sum(sum[r]);
        float share = sum[r] == 0 ? 0 : 1 / sum[r];
        #pragma unroll
        for (int i = 0; i < D / 8; ++i) sums[i][2 * r] *= share, sums[i][2 * r + 1] *= share;
        int query = row + 8 * r;
        if (t == 0 && query < n)
            logs[((long long)text * H + head) * n + query] =
                sum[r] == 0 ? 0 : top[r] / LOG2E + logf(sum[r]);
    }
    write_rows<D>(y, sums, asking, row);
}

// With the weights p made again from q, k and `logs`, and ds = scale p (dy @ v.T - inner), where
// inner = Σ dy y of each query: dq = ds @ k. Also writes inner, (B, H, n).
template <typename T, int D, int P>
__global__ void __launch_bounds__(32 * WARPS)
attention_dq(const T* q, const T* k, const T* v, const bool* mask, const T* y, const T* dy,
             const T* logs, T* inner, T* dq, T scale, int causal, int H, int n, int m, int h) {
    __shared__ __align__(16) Tile<D, P> keys, values;
    const int head = blockIdx.y, text = blockIdx.z, t = threadIdx.x % 4;
    const int first = (gridDim.x - 1 - blockIdx.x) * ROWS * WARPS;
    const int row = first + threadIdx.x / 32 * ROWS + threadIdx.x % 32 / 4;
    const bool* real = mask ? mask + (long long)text * m : nullptr;
    Tokens asking(text, head, n, H, h), asked(text, head, m, H, h);
    Left<P> queries[D / 8], gradients[D / 8];
    read_rows<D, P>(queries, q, asking, row);
    read_rows<D, P>(gradients, dy, asking, row);
    float sums[D / 8][4] = {}, log[2], along[2] = {};
    for (int r = 0; r < 2; ++r) {
        int query = row + 8 * r;
        for (int c = t; query < n && c < h; c += 4)
            along[r] += dy[asking.at(query, c)] * y[asking.at(query, c)];
        along[r] = row_sum(along[r]);
        long long place = ((long long)text * H + head) * n + query;
        log[r] = query < n ? logs[place] * LOG2E : 0;
        if (t == 0 && query < n) inner[place] = along[r];
    }
    const int seen = causal ? min(m, first + ROWS * WARPS + m - n) : m;
    for (int start = 0; start < seen; start += TILE<D>) {
        __syncthreads();
        keys.read_from(k, asked, start, real);
        values.read_from(v, asked, start, real);
        __syncthreads();
        for (int part = 0; part < TILE<D>; part += 8 * SIDE<P>) {
            float p[SIDE<P>][4], ds[SIDE<P>][4];
            scores_of<D, P, SIDE<P>>(p, queries, keys, part);
            scores_of<D, P, SIDE<P>>(ds, gradients, values, part);
            #pragma unroll
            for (int j = 0; j < SIDE<P>; ++j) {
                for (int i = 0; i < 4; ++i) {
                    int key = start + part + 8 * j + 2 * t + i % 2, last = row + i / 2 * 8 + m - n;
                    bool visible = key < m && (!causal || key <= last) && (!real || real[key]);
                    float weight = exp2f(p[j][i] * (scale * LOG2E) - log[i / 2]);
                    ds[j][i] = visible ? scale * weight * (ds[j][i] - along[i / 2]) : 0;
                }
                add_weighted<D, P>(sums, ds[j], keys, part + 8 * j);
            }
        }
    }
    write_rows<D>(dq, sums, asking, row);
}

// dv = p.T @ dy and dk = ds.T @ q, the rows being keys: all scores are transposed.
template <typename T, int D, int P>
__global__ void __launch_bounds__(32 * WARPS)
attention_dkv(const T* q, const T* k, const T* v, const bool* mask, const T* dy, const T* logs,
              const T* inner, T* dk, T* dv, T scale, int causal, int H, int n, int m, int h) {
    __shared__ __align__(16) Tile<D, P> queries, gradients;
    __shared__ float log[TILE<D>], along[TILE<D>];
    const int head = blockIdx.y, text = blockIdx.z, t = threadIdx.x % 4;
    const int first = blockIdx.x * ROWS * WARPS;
    const int row = first + threadIdx.x / 32 * ROWS + threadIdx.x % 32 / 4;
    const bool* real = mask ? mask + (long long)text * m : nullptr;
    Tokens asking(text, head, n, H, h), asked(text, head, m, H, h);
    Left<P> keys[D / 8], values[D / 8];
    read_rows<D, P>(keys, k, asked, row);
    read_rows<D, P>(values, v, asked, row);
    bool counts[2];
    for (int r = 0; r < 2; ++r) counts[r] = row + 8 * r < m && (!real || real[row + 8 * r]);
    float dkeys[D / 8][4] = {}, dvalues[D / 8][4] = {};
    // Queries before the first that sees a key of this block are left out, a tile at a time.
    const int blind = causal ? max(0, first - (m - n)) / TILE<D> * TILE<D> : 0;
    for (int start = blind; start < n; start += TILE<D>) {
        __syncthreads();
        queries.read_from(q, asking, start, nullptr);
        gradients.read_from(dy, asking, start, nullptr);
        for (int i = threadIdx.x; i < TILE<D>; i += blockDim.x) {
            long long place = ((long long)text * H + head) * n + start + i;
            log[i] = start + i < n ? logs[place] * LOG2E : 0;
            along[i] = start + i < n ? inner[place] : 0;
        }
        __syncthreads();
        for (int part = 0; part < TILE<D>; part += 8 * SIDE<P>) {
            float p[SIDE<P>][4], ds[SIDE<P>][4];
            scores_of<D, P, SIDE<P>>(p, keys, queries, part);
            scores_of<D, P, SIDE<P>>(ds, values, gradients, part);
            #pragma unroll
            for (int j = 0; j < SIDE<P>; ++j) {
                for (int i = 0; i < 4; ++i) {
                    int own = part + 8 * j + 2 * t + i % 2, query = start + own;
                    int key = row + i / 2 * 8;
                    bool visible = query < n && counts[i / 2] && (!causal || key <= query + m - n);
                    p[j][i] = visible ? exp2f(p[j][i] * (scale * LOG2E) - log[own]) : 0;
                    ds[j][i] = visible ? scale * p[j][i] * (ds[j][i] - along[own]) : 0;
                }
                add_weighted<D, P>(dvalues, p[j], gradients, part + 8 * j);
                add_weighted<D, P>(dkeys, ds[j], queries, part + 8 * j);
            }
        }
    }
    write_rows<D>(dk, dkeys, asked, row);
    write_rows<D>(dv, dvalues, asked, row);
}
