"""The two ends of direct summation: words in, a sum out.

A thread a channel, so that neighbours read neighbouring numbers, and no thread divides more than
once to find out where it is: on a GPU a division costs as much as a dozen multiplications.
"""

from minisum.backend import array_module
from minisum.kernels.compiling import launch

COLUMNS, LANES = 64, 8
# Threads that keep all of a large GPU busy.
THREADS = 2**18

_SOURCE = r"""
template <typename T>
__global__ void embed_modulate(const int* ids, const T* table, const T* positions, T bias, T* y,
                               int tokens, int n, int d) {
    int token = blockIdx.x * blockDim.y + threadIdx.y, c = blockIdx.y * blockDim.x + threadIdx.x;
    if (token >= tokens || c >= d) return;
    T factor = positions[(long long)(token % n) * d + c] + bias;
    y[(long long)token * d + c] = table[(long long)ids[token] * d + c] * factor;
}

// A thread a position and channel, which meets the words there of some of the texts.
template <typename T>
__global__ void embed_modulate_back(const T* dy, const int* ids, const T* table,
                                    const T* positions, T bias, T* shares, T* dtable, int B,
                                    int n, int d, int texts) {
    int t = blockIdx.x * blockDim.y + threadIdx.y, c = blockIdx.y * blockDim.x + threadIdx.x;
    if (t >= n || c >= d) return;
    int first = blockIdx.z * texts, end = min(B, first + texts);
    T factor = positions[(long long)t * d + c] + bias, sum = 0;
    #pragma unroll 4
    for (int b = first; b < end; ++b) {
        long long token = (long long)b * n + t, word = (long long)ids[token] * d + c;
        T g = dy[token * d + c];
        sum += g * table[word];
        if (g != 0) atomicAdd(&dtable[word], g * factor);
    }
    shares[((long long)blockIdx.z * n + t) * d + c] = sum;
}

// y[s, b, c] = sum of max(x[b, t, c], 0) over the real tokens t of stretch s, and where x > 0.
template <typename T>
__global__ void relu_sum(const T* x, const bool* mask, T* y, bool* positive, int B, int n, int d,
                         int stretch) {
    int c = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y, s = blockIdx.z;
    int end = min(n, (s + 1) * stretch);
    T sum = 0;
    if (c < d) {
        long long column = (long long)b * n * d + c;
        // All loads without a branch before them, so that four are under way at a time.
        #pragma unroll 4
        for (int t = s * stretch + threadIdx.y; t < end; t += blockDim.y) {
            T value = x[column + (long long)t * d];
            bool real = !mask || mask[(long long)b * n + t];
            positive[column + (long long)t * d] = real && value > 0;
            sum += real && !(value <= 0) ? value : (T)0;  // a NaN stays
        }
    }
    __shared__ T rows[8][64];
    rows[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < d) {
        for (int lane = 1; lane < 8; ++lane) sum += rows[lane][threadIdx.x];
        y[((long long)s * B + b) * d + c] = sum;
    }
}

template <typename T>
__global__ void relu_sum_back(const T* dy, const bool* positive, T* dx, int tokens, int n, int d) {
    int token = blockIdx.x * blockDim.y + threadIdx.y, c = blockIdx.y * blockDim.x + threadIdx.x;
    if (token >= tokens || c >= d) return;
    long long i = (long long)token * d + c;
    dx[i] = positive[i] ? dy[(long long)(token / n) * d + c] : (T)0;
}
"""


def _tiles(rows, columns, depth=1):
    """A grid of blocks of COLUMNS x 4 threads, one for each number of (depth, rows, columns)."""
    return (-(-rows // 4), -(-columns // COLUMNS), depth), (COLUMNS, 4, 1)


def embed_modulate(ids, table, positions, bias):
    """table[ids] * (positions + bias).   ids (B, n) int32, table (V, d), positions (n, d)"""
    xp = array_module(table)
    (B, n), d = ids.shape, table.shape[1]
    y = xp.empty((B, n, d), table.dtype)
    arrays = (xp.ascontiguousarray(a) for a in (ids, table, positions))
    sizes = (float(bias), y, B * n, n, d)
    launch(_SOURCE, "embed_modulate", table.dtype, *_tiles(B * n, d), *arrays, *sizes)
    return y


def embed_modulate_back(dy, ids, table, positions, bias, dtable):
    """dtable[ids] += dy * (positions + bias), repeats included; returns Σ_b dy * table[ids].

    The texts are shared out until there are THREADS threads.
    """
    xp = array_module(dy)
    B, n, d = dy.shape
    texts = max(1, min(B, B * n * d // THREADS))
    depth = -(-B // texts)
    shares = xp.empty((depth, n, d), dy.dtype)
    arrays = (xp.ascontiguousarray(a) for a in (dy, ids, table, positions))
    others = (float(bias), shares, dtable, B, n, d, texts)
    launch(_SOURCE, "embed_modulate_back", dy.dtype, *_tiles(n, d, depth), *arrays, *others)
    return shares[0] if depth == 1 else shares.sum(axis=0)


def relu_sum(x, mask):
    """Σ_t relu(x[b, t]) over real tokens t, and which numbers of these are positive.

    x (B, n, d), mask (B, n) bool or None -> (B, d), (B, n, d) bool.
    A block of 64 columns by 8 lanes of tokens. The tokens are cut into stretches until there are
    about 512 blocks, enough to fill the device, and the stretches' sums are added up at the end.
    """
    xp = array_module(x)
    x, (B, n, d) = xp.ascontiguousarray(x), x.shape
    mask = None if mask is None else xp.ascontiguousarray(mask)
    columns = -(-d // COLUMNS)
    stretches = max(1, min(512 // max(1, B * columns), -(-n // 64)))
    stretch = -(-n // stretches)
    y, positive = xp.empty((stretches, B, d), x.dtype), xp.empty(x.shape, bool)
    grid, block = (columns, B, stretches), (COLUMNS, LANES, 1)
    launch(_SOURCE, "relu_sum", x.dtype, grid, block, x, mask, y, positive, B, n, d, stretch)
    return y[0] if stretches == 1 else y.sum(axis=0), positive


def relu_sum_back(dy, positive):
    """dy[b] where positive[b, t], else 0.   dy (B, d), positive (B, n, d) bool -> (B, n, d)"""
    xp = array_module(dy)
    dy, (B, n, d) = xp.ascontiguousarray(dy), positive.shape
    dx = xp.empty(positive.shape, dy.dtype)
    tiles = _tiles(B * n, d)
    launch(_SOURCE, "relu_sum_back", dy.dtype, *tiles, dy, positive, dx, B * n, n, d)
    return dx
