"""Softmax, a block of threads a row: once before a loss, once inside attention."""

from minisum.backend import array_module
from minisum.kernels.compiling import launch, threads_for

_SOURCE = r"""
// p = softmax(logits), loss = -log p[target]; the loss is zero where the target is ignored.
template <typename T>
__global__ void softmax_loss(const T* logits, const int* targets, T* p, T* losses, int C,
                             int ignore) {
    __shared__ T shared[256];
    const T* row = logits + (long long)blockIdx.x * C;
    T* out = p + (long long)blockIdx.x * C;
    int target = targets[blockIdx.x];
    T own = target == ignore ? row[0] : row[target];  // read before `out`, which may be `row`
    T top = row[0], sum = 0;
    for (int c = threadIdx.x; c < C; c += blockDim.x) top = larger(top, row[c]);
    top = block_max(top, shared);
    for (int c = threadIdx.x; c < C; c += blockDim.x) sum += exp(row[c] - top);
    sum = block_sum(sum, shared);
    for (int c = threadIdx.x; c < C; c += blockDim.x) out[c] = exp(row[c] - top) / sum;
    if (threadIdx.x == 0) losses[blockIdx.x] = target == ignore ? (T)0 : log(sum) + top - own;
}

template <typename T>
__global__ void cross_entropy_back(const T* p, const int* targets, const T* scale, T* dlogits,
                                   int C, int ignore) {
    int target = targets[blockIdx.x];
    T factor = *scale;
    const T* row = p + (long long)blockIdx.x * C;
    T* out = dlogits + (long long)blockIdx.x * C;
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        out[c] = target == ignore ? (T)0 : (row[c] - (T)(c == target)) * factor;
}

// A row is the scores of one query, in blocks of H * n rows a text. Turned into weights in place.
template <typename T>
__global__ void attention_weights(T* scores, const bool* mask, T scale, int causal, int H, int n,
                                  int m) {
    __shared__ T shared[256];
    T* row = scores + (long long)blockIdx.x * m;
    const bool* real = mask ? mask + (long long)(blockIdx.x / (H * n)) * m : nullptr;
    int last = causal ? (int)(blockIdx.x % n) + m - n : m - 1;
    const T lowest = -(T)__int_as_float(0x7f800000);  // minus infinity
    T top = lowest, sum = 0;
    for (int j = threadIdx.x; j <= last; j += blockDim.x)
        if (!real || real[j]) top = larger(top, scale * row[j]);
    top = block_max(top, shared);
    T shift = top == lowest ? (T)0 : top;
    for (int j = threadIdx.x; j < m; j += blockDim.x) {
        bool seen = j <= last && (!real || real[j]);
        T weight = seen ? exp(scale * row[j] - shift) : (T)0;
        row[j] = weight;
        sum += weight;
    }
    sum = block_sum(sum, shared);
    if (sum == 0) sum = 1;
    for (int j = threadIdx.x; j < m; j += blockDim.x) row[j] /= sum;
}

template <typename T>
__global__ void attention_weights_back(T* dp, const T* p, T scale, int m) {
    __shared__ T shared[256];
    T* g = dp + (long long)blockIdx.x * m;
    const T* row = p + (long long)blockIdx.x * m;
    T inner = 0;
    for (int j = threadIdx.x; j < m; j += blockDim.x) inner += g[j] * row[j];
    inner = block_sum(inner, shared);
    for (int j = threadIdx.x; j < m; j += blockDim.x) g[j] = row[j] * (g[j] - inner) * scale;
}
"""


def softmax_loss(logits, targets, ignore, in_place=False):
    """(p, losses) of rows of logits (N, C): softmax, and -log p[target], 0 for ignored targets.

    in_place: p takes the place of the logits.
    """
    xp = array_module(logits)
    logits, targets = xp.ascontiguousarray(logits), xp.ascontiguousarray(targets)
    N, C = logits.shape
    p = logits if in_place else xp.empty_like(logits)
    losses = xp.empty(N, logits.dtype)
    launch(
        *(_SOURCE, "softmax_loss", logits.dtype, (N, 1, 1), (threads_for(C), 1, 1)),
        *(logits, targets, p, losses, C, ignore),
    )
    return p, losses


def cross_entropy_back(p, targets, scale, ignore, in_place=False):
    """(p - onehot(targets)) * scale, 0 in ignored rows. scale: a number, here or on the device"""
    xp = array_module(p)
    p, targets, (N, C) = xp.ascontiguousarray(p), xp.ascontiguousarray(targets), p.shape
    scale = xp.full((), scale, p.dtype)
    dlogits = p if in_place else xp.empty_like(p)
    launch(
        *(_SOURCE, "cross_entropy_back", p.dtype, (N, 1, 1), (threads_for(C), 1, 1)),
        *(p, targets, scale, dlogits, C, ignore),
    )
    return dlogits


def attention_weights(scores, mask, causal, scale):
    """softmax(scale * scores) over the keys that may be seen, in the place of the scores.

    scores (B, H, n, m), mask (B, m) bool or None; with `causal` the queries are the last n of the m
    tokens. A row in which no key may be seen is 0. As in minisum.ops.attention.
    """
    xp = array_module(scores)
    B, H, n, m = scores.shape
    scores = xp.ascontiguousarray(scores)
    mask = None if mask is None else xp.ascontiguousarray(mask)
    launch(
        *(_SOURCE, "attention_weights", scores.dtype, (B * H * n, 1, 1), (threads_for(m), 1, 1)),
        *(scores, mask, float(scale), int(causal), H, n, m),
    )
    return scores


def attention_weights_back(dp, p, scale):
    """scale p (dp - Σ dp p), the gradient of the scores, in the place of dp (B, H, n, m)."""
    dp, (B, H, n, m) = array_module(p).ascontiguousarray(dp), p.shape
    launch(
        *(_SOURCE, "attention_weights_back", p.dtype, (B * H * n, 1, 1), (threads_for(m), 1, 1)),
        *(dp, p, float(scale), m),
    )
    return dp
