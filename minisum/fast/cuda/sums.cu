// Sums down the columns of x (rows, columns): a block takes some of them and a stretch of the rows,
// a thread neighbouring columns.

const int LANES = 8;

template <typename T, int K>
__global__ void column_sums(const T* x, T* sums, int rows, int columns, int stretch) {
    __shared__ Pack<T, K> parts[LANES][32];
    int c = (blockIdx.x * 32 + threadIdx.x) * K, first = blockIdx.y * stretch;
    int end = min(rows, first + stretch);
    Pack<T, K> sum = {};
    #pragma unroll 8
    for (int row = first + threadIdx.y; c < columns && row < end; row += LANES) {
        Pack<T, K> more = read<K>(x + (long long)row * columns + c);
        for (int k = 0; k < K; ++k) sum.of[k] += more.of[k];
    }
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || c >= columns) return;
    for (int lane = 1; lane < LANES; ++lane)
        for (int k = 0; k < K; ++k) sum.of[k] += parts[lane][threadIdx.x].of[k];
    write<K>(sums + (long long)blockIdx.y * columns + c, sum);
}
