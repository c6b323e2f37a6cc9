// Sums down the columns of x (rows, columns): a block takes 32 of them and a stretch of the rows.

const int LANES = 8;

template <typename T>
__global__ void column_sums(const T* x, T* sums, int rows, int columns, int stretch) {
    __shared__ T parts[LANES][32];
    int c = blockIdx.x * 32 + threadIdx.x, first = blockIdx.y * stretch;
    int end = min(rows, first + stretch);
    T sum = 0;
    #pragma unroll 8
    for (int row = first + threadIdx.y; c < columns && row < end; row += LANES)
        sum += x[(long long)row * columns + c];
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || c >= columns) return;
    for (int lane = 1; lane < LANES; ++lane) sum += parts[lane][threadIdx.x];
    sums[(long long)blockIdx.y * columns + c] = sum;
}
