// Products of the tokens of a chunk of C, a block of threads a chunk: A_ij = Σ x_i y_j e^{b_i - b_j}
// over K channels for j <= i, 0 above the diagonal; all arrays (chunks, C, K), A (chunks, C, C).

const int LONGEST = 64, COLUMNS = 16, THREADS = 256;

template <typename T>
__global__ void __launch_bounds__(THREADS)
decayed_products(const T* x, const T* y, const T* b, T* A, int C, int K) {
    __shared__ T later[LONGEST][COLUMNS + 1], earlier[LONGEST][COLUMNS + 1];
    __shared__ T log[LONGEST][COLUMNS + 1];
    long long start = (long long)blockIdx.x * C * K;
    T sums[LONGEST * LONGEST / THREADS] = {};
    for (int first = 0; first < K; first += COLUMNS) {
        __syncthreads();
        for (int i = threadIdx.x; i < C * COLUMNS; i += THREADS) {
            int row = i / COLUMNS, c = i % COLUMNS;
            long long place = start + (long long)row * K + first + c;
            bool inside = first + c < K;
            later[row][c] = inside ? x[place] : (T)0;
            earlier[row][c] = inside ? y[place] : (T)0;
            log[row][c] = inside ? b[place] : (T)0;
        }
        __syncthreads();
        #pragma unroll
        for (int s = 0; s < LONGEST * LONGEST / THREADS; ++s) {
            int pair = s * THREADS + threadIdx.x, i = pair / C, j = pair % C;
            if (i >= C || j > i) continue;
            for (int c = 0; c < COLUMNS; ++c)
                sums[s] += later[i][c] * earlier[j][c] * exp(log[i][c] - log[j][c]);
        }
    }
    #pragma unroll
    for (int s = 0; s < LONGEST * LONGEST / THREADS; ++s) {
        int pair = s * THREADS + threadIdx.x;
        if (pair < C * C) A[(long long)blockIdx.x * C * C + pair] = sums[s];
    }
}

// A thread a token and channel. What dA holds above the diagonal is not read.
template <typename T>
__global__ void __launch_bounds__(THREADS)
decayed_products_back(const T* dA, const T* x, const T* y, const T* b, T* dx, T* dy, int C, int K) {
    const T* d = dA + (long long)blockIdx.x * C * C;
    long long start = (long long)blockIdx.x * C * K;
    for (int i = threadIdx.x; i < C * K; i += THREADS) {
        int t = i / K;
        long long c = start + i % K;
        T own = b[c + (long long)t * K], as_later = 0, as_earlier = 0;
        for (int s = 0; s < C; ++s) {
            long long other = c + (long long)s * K;
            if (s <= t) as_later += d[t * C + s] * exp(own - b[other]) * y[other];
            if (s >= t) as_earlier += d[s * C + t] * exp(b[other] - own) * x[other];
        }
        dx[c + (long long)t * K] = as_later;
        dy[c + (long long)t * K] = as_earlier;
    }
}
