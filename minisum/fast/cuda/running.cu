// Running sums along an axis that is not the last. A block takes 32 neighbouring channels and LANES
// stretches of TOKENS tokens at a time: each number is read once and written once.

const int LANES = 16, TOKENS = 16;

template <typename T>
__global__ void running_sum(const T* x, T* y, int columns, int n, int inner, int reverse) {
    __shared__ T sums[LANES][32];
    int column = blockIdx.x * 32 + threadIdx.x, lane = threadIdx.y;
    long long start = (long long)(column / inner) * n * inner + column % inner;
    T before = 0;
    for (int first = 0; first < n; first += LANES * TOKENS) {
        T own[TOKENS], sum = 0;
        #pragma unroll
        for (int i = 0; i < TOKENS; ++i) {
            int t = first + lane * TOKENS + i, place = reverse ? n - 1 - t : t;
            own[i] = t < n && column < columns ? x[start + (long long)place * inner] : (T)0;
        }
        #pragma unroll
        for (int i = 0; i < TOKENS; ++i) own[i] = sum += own[i];
        sums[lane][threadIdx.x] = sum;
        __syncthreads();
        T ahead = before;
        for (int other = 0; other < LANES; ++other) {
            if (other < lane) ahead += sums[other][threadIdx.x];
            before += sums[other][threadIdx.x];
        }
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < TOKENS; ++i) {
            int t = first + lane * TOKENS + i, place = reverse ? n - 1 - t : t;
            if (t < n && column < columns) y[start + (long long)place * inner] = ahead + own[i];
        }
    }
}
