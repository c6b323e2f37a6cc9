"""Fused GPU kernels: one launch and one pass over memory for what plain ops do in several.

Nothing here computes anything new. Every function names the plain form that it equals, and a test
on a GPU compares the two. Kernels are compiled on first use, for float32 and float64.
"""

from functools import cache

import numpy as np

from minisum.backend import array_module

_CUDA = r"""
// y[s, b, c] = sum of max(x[b, t, c], 0) over the real tokens t of stretch s.
template <typename T>
__global__ void relu_sum(const T* x, const bool* mask, T* y, int B, int n, int d, int stretch) {
    int c = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y, s = blockIdx.z;
    int end = min(n, (s + 1) * stretch);
    T sum = 0;
    if (c < d)
        for (int t = s * stretch + threadIdx.y; t < end; t += blockDim.y)
            if (!mask || mask[(long long)b * n + t]) {
                T value = x[((long long)b * n + t) * d + c];
                sum += value > 0 || value != value ? value : (T)0;
            }
    __shared__ T rows[8][64];
    rows[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < d) {
        for (int lane = 1; lane < 8; ++lane) sum += rows[lane][threadIdx.x];
        y[((long long)s * B + b) * d + c] = sum;
    }
}

// One block a row: p = softmax(logits), loss = -log p[target]; both zero where target is ignored.
template <typename T>
__global__ void softmax_loss(const T* logits, const int* targets, T* p, T* losses, int C,
                             int ignore) {
    __shared__ T shared[256];
    const T* row = logits + (long long)blockIdx.x * C;
    T* out = p + (long long)blockIdx.x * C;
    int target = targets[blockIdx.x];
    T top = row[0];
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        if (row[c] > top || row[c] != row[c]) top = row[c];
    shared[threadIdx.x] = top;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) {
            T other = shared[threadIdx.x + half];
            if (other > shared[threadIdx.x] || other != other) shared[threadIdx.x] = other;
        }
        __syncthreads();
    }
    top = shared[0];
    __syncthreads();
    T sum = 0;
    for (int c = threadIdx.x; c < C; c += blockDim.x) sum += exp(row[c] - top);
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    sum = shared[0];
    bool counted = target != ignore;
    for (int c = threadIdx.x; c < C; c += blockDim.x) out[c] = exp(row[c] - top) / sum;
    if (threadIdx.x == 0) losses[blockIdx.x] = counted ? log(sum) + top - row[target] : (T)0;
}
"""


@cache
def _compiled(name, dtype):
    """The kernel `name` of the source above for one type. Compiling takes a moment, once."""
    import cupy

    kind = {"float32": "float", "float64": "double"}[dtype]
    symbol = f"{name}<{kind}>"
    module = cupy.RawModule(code=_CUDA, options=("-std=c++17",), name_expressions=[symbol])
    return module.get_function(symbol)


@cache
def _elementwise(name):
    import cupy

    return cupy.ElementwiseKernel(*_ELEMENTWISE[name], name=f"minisum_{name}")


_ELEMENTWISE = {
    "embed_modulate": (
        "raw int32 ids, raw T table, raw T positions, T bias, int32 n, int32 d",
        "T y",
        """
        int row = i / d, c = i - (ptrdiff_t)row * d;
        y = table[(ptrdiff_t)ids[row] * d + c] * (positions[(row % n) * d + c] + bias);
        """,
    ),
    "embed_modulate_back": (
        "raw T dy, raw int32 ids, raw T table, raw T positions, T bias, int32 B, int32 n, int32 d",
        "T dposition, raw T dtable",
        """
        int t = i / d, c = i - (ptrdiff_t)t * d;
        T factor = positions[i] + bias, sum = 0;
        for (int b = 0; b < B; ++b) {
            ptrdiff_t word = (ptrdiff_t)ids[b * n + t] * d + c;
            T g = dy[((ptrdiff_t)b * n + t) * d + c];
            sum += g * table[word];
            if (g != 0) atomicAdd(&dtable[word], g * factor);
        }
        dposition = sum;
        """,
    ),
    "relu_sum_back": (
        "T x, raw T dy, raw bool mask, bool masked, int32 n, int32 d",
        "T dx",
        """
        ptrdiff_t token = i / d;
        bool passed = x > 0 && (!masked || mask[token]);
        dx = passed ? dy[(token / n) * d + (i - token * d)] : (T)0;
        """,
    ),
    "cross_entropy_back": (
        "T p, raw int32 targets, T scale, int32 ignore, int32 C",
        "T dlogits",
        """
        int row = i / C, c = i - (ptrdiff_t)row * C, target = targets[row];
        dlogits = target == ignore ? (T)0 : (p - (T)(c == target)) * scale;
        """,
    ),
    "adam": (
        "T g, T weight, T scale, T clip, T rate, T shrink, T beta1, T gain1, T beta2, T gain2,"
        "T root, T eps",
        "T theta, T m, T v",
        """
        T gradient = clip > 0 ? max(-clip, min(clip, g)) : g;
        gradient *= scale;
        m = beta1 * m + gain1 * gradient;
        v = beta2 * v + gain2 * gradient * gradient;
        theta -= shrink * weight * theta;
        theta -= rate * m / (sqrt(v) / root + eps);
        """,
    ),
}


def runs_on(*arrays):
    """Whether the kernels can take these arrays: on a GPU, of one of the two types."""
    return all(array_module(a) is not np and a.dtype in (np.float32, np.float64) for a in arrays)


def embed_modulate(ids, table, positions, bias):
    """table[ids] * (positions + bias).   ids (B, n) int32, table (V, d), positions (n, d)"""
    (B, n), d = ids.shape, table.shape[1]
    y = array_module(table).empty((B, n, d), table.dtype)
    return _elementwise("embed_modulate")(ids, table, positions, bias, n, d, y)


def embed_modulate_back(dy, ids, table, positions, bias, dtable):
    """dtable[ids] += dy * (positions + bias), repeats included; returns Σ_b dy * table[ids]."""
    B, n, d = dy.shape
    dpositions = array_module(dy).empty((n, d), dy.dtype)
    _elementwise("embed_modulate_back")(
        dy, ids, table, positions, bias, B, n, d, dpositions, dtable
    )
    return dpositions


def relu_sum(x, mask):
    """Σ_t relu(x[b, t]) over real tokens.   x (B, n, d), mask (B, n) bool or None -> (B, d)

    A block of 64 columns by 8 lanes of tokens. The tokens are cut into stretches until there are
    about 512 blocks, enough to fill the device, and the stretches' sums are added up at the end.
    """
    xp = array_module(x)
    x, (B, n, d) = xp.ascontiguousarray(x), x.shape
    mask = None if mask is None else xp.ascontiguousarray(mask)
    columns = -(-d // 64)
    stretches = max(1, min(512 // (B * columns), -(-n // 64)))
    stretch = -(-n // stretches)
    y = xp.empty((stretches, B, d), x.dtype)
    sizes = (np.int32(size) for size in (B, n, d, stretch))
    if y.size:  # a launch of no blocks would be one of one block
        _compiled("relu_sum", x.dtype.name)(
            (columns, B, stretches),
            (64, 8),
            (x, np.uintp(0) if mask is None else mask, y, *sizes),
        )
    return y[0] if stretches == 1 else y.sum(axis=0)


def relu_sum_back(dy, x, mask):
    """dy[b] where x[b, t] > 0 and token t is real, else 0.   dy (B, d), x (B, n, d)"""
    B, n, d = x.shape
    masked = mask is not None
    return _elementwise("relu_sum_back")(x, dy, mask if masked else _nothing(bool), masked, n, d)


@cache
def _nothing(dtype):
    """An array for a kernel's argument that it will not read."""
    import cupy

    return cupy.zeros(1, dtype)


def softmax_loss(logits, targets, ignore):
    """(p, losses) of rows of logits (N, C): softmax, and -log p[target], 0 for ignored targets."""
    xp = array_module(logits)
    logits, (N, C) = xp.ascontiguousarray(logits), logits.shape
    p, losses = xp.empty_like(logits), xp.empty(N, logits.dtype)
    threads = 32 if C <= 64 else 256
    if N:  # a launch of no blocks would be one of one block
        _compiled("softmax_loss", logits.dtype.name)(
            (N,), (threads,), (logits, targets, p, losses, np.int32(C), np.int32(ignore))
        )
    return p, losses


def cross_entropy_back(p, targets, scale, ignore):
    """(p - onehot(targets)) * scale, 0 in ignored rows. scale: a number, here or on the device"""
    return _elementwise("cross_entropy_back")(p, targets, scale, ignore, p.shape[-1])


def adam(g, weight, scale, clip, rate, shrink, betas, root, eps, theta, m, v):
    """One step of Adam on flat vectors, in place; see minisum.optim.Adam for the formula.

    scale: a number, here or on the device, that multiplies g; clip 0 for no clipping; root
    √(1 - β₂ᵗ).
    """
    # 1 - 0.999 in float32 would be wrong in the fifth digit, so it is taken here.
    decays = (betas[0], 1 - betas[0], betas[1], 1 - betas[1])
    _elementwise("adam")(g, weight, scale, clip, rate, shrink, *decays, root, eps, theta, m, v)
