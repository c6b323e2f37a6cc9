"""Layer norm, a block of threads a token."""

from minisum.backend import array_module
from minisum.fast.cuda import compiling

# Tokens whose share of the gains' gradient one thread adds up, and the most stretches of them: a
# grid has no more blocks along its second axis.
STRETCH, MOST_STRETCHES = 32, 65535

_SOURCE = r"""
template <typename T>
__global__ void layer_norm(const T* x, const T* gain, const T* bias, T eps, T* y, T* mean, T* r,
                           int d) {
    __shared__ T shared[8];
    const T* row = x + (long long)blockIdx.x * d;
    T sum = 0, squares = 0;
    for (int c = threadIdx.x; c < d; c += blockDim.x) sum += row[c];
    T centre = block_sum(sum, shared) / d;
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        T distance = row[c] - centre;
        squares += distance * distance;
    }
    T size = 1 / sqrt(block_sum(squares, shared) / d + eps);
    for (int c = threadIdx.x; c < d; c += blockDim.x)
        y[(long long)blockIdx.x * d + c] = (row[c] - centre) * size * gain[c] + bias[c];
    if (threadIdx.x == 0) mean[blockIdx.x] = centre, r[blockIdx.x] = size;
}

template <typename T>
__global__ void layer_norm_back(const T* dy, const T* x, const T* gain, const T* mean, const T* r,
                                T* dx, int d) {
    __shared__ T shared[8];
    long long start = (long long)blockIdx.x * d;
    T centre = mean[blockIdx.x], size = r[blockIdx.x], sum = 0, along = 0;
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        T g = dy[start + c] * gain[c];
        sum += g;
        along += g * (x[start + c] - centre) * size;
    }
    sum = block_sum(sum, shared) / d;
    along = block_sum(along, shared) / d;
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        T normed = (x[start + c] - centre) * size;
        dx[start + c] = size * (dy[start + c] * gain[c] - sum - normed * along);
    }
}

// A thread a channel and stretch of tokens: its share of dgain and, behind those, of dbias.
template <typename T>
__global__ void layer_norm_back_gains(const T* dy, const T* x, const T* mean, const T* r,
                                      T* shares, int tokens, int d, int stretch) {
    int c = blockIdx.x * blockDim.x + threadIdx.x, s = blockIdx.y;
    if (c >= d) return;
    T dgain = 0, dbias = 0;
    int end = min(tokens, (s + 1) * stretch);
    #pragma unroll 4
    for (int t = s * stretch; t < end; ++t) {
        T g = dy[(long long)t * d + c];
        dgain += g * (x[(long long)t * d + c] - mean[t]) * r[t];
        dbias += g;
    }
    shares[((long long)s * 2) * d + c] = dgain;
    shares[((long long)s * 2 + 1) * d + c] = dbias;
}
"""


def layer_norm(x, gain, bias, eps=1e-5):
    """One kernel forward and two backward."""
    if not compiling.runs_on(x, gain, bias):
        return NotImplemented
    xp, shape, d = array_module(x), x.shape, x.shape[-1]
    x, gain, bias = map(xp.ascontiguousarray, (x.reshape(-1, d), gain, bias))
    N, block = len(x), (compiling.threads_for(d), 1, 1)
    y, mean, r = xp.empty_like(x), xp.empty(N, x.dtype), xp.empty(N, x.dtype)
    arguments = (x, gain, bias, float(eps), y, mean, r, d)
    compiling.launch(_SOURCE, "layer_norm", x.dtype, (N, 1, 1), block, *arguments)

    def back(dy):
        dy, dx = xp.ascontiguousarray(dy.reshape(x.shape)), xp.empty_like(x)
        arguments = (dy, x, gain, mean, r, dx, d)
        compiling.launch(_SOURCE, "layer_norm_back", x.dtype, (N, 1, 1), block, *arguments)
        stretch = max(STRETCH, -(-N // MOST_STRETCHES))
        stretches = -(-N // stretch)
        shares = xp.empty((stretches, 2, d), x.dtype)
        grid, arguments = (-(-d // 64), stretches, 1), (dy, x, mean, r, shares, N, d, stretch)
        compiling.launch(_SOURCE, "layer_norm_back_gains", x.dtype, grid, (64, 1, 1), *arguments)
        dgain, dbias = shares.sum(axis=0)
        return dx.reshape(shape), dgain, dbias

    return y.reshape(shape), back
