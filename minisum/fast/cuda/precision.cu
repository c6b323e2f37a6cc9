// float32 to bfloat16, its upper half, rounded to nearest, to even at a tie.

template <typename T, int K>
__global__ void to_bfloat16(const T* x, unsigned short* y, int packs) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= packs) return;
    Pack<T, K> from = read<K>(x + (long long)i * K);
    Pack<unsigned short, K> to;
    for (int k = 0; k < K; ++k) {
        unsigned bits = __float_as_uint((float)from.of[k]);
        unsigned rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        to.of[k] = from.of[k] == from.of[k] ? rounded : 0x7fc0;
    }
    write<K>(y + (long long)i * K, to);
}
