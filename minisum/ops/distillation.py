"""Linear attention taught to weigh as softmax attention does, before it is taught a task."""

from minisum.backend import array_module
from minisum.ops.softmax_attention import without_padding


def kernel_cross_entropy(q, k, weights, mask, total=None, eps=1e-6):
    """loss = -Σ weights ⊙ log p / total,  p_ts = S_ts / Z_t,  S = q @ k.T + eps,  Z_t = Σ_s S_ts.

    p are the weights of `kernel_attention` whose guard is spread over the keys. q, k (B, H, n, K)
    features, not negative, weights (B, H, n, n), those of softmax attention, mask (B, n) bool over
    queries and keys -> (). The default total is the number of real queries in all heads. Zhang et
    al. 2024, "The Hedgehog & the Porcupine", the attention weight distillation loss.

    dS_ts = Σ_s weights_ts / Z_t - weights_ts / S_ts, 0 at padding, and dq = dS @ k, dk = dS.T @ q,
    dweights = -log p; each times dloss / total.

    Saved: q, k, weights, S, Z, -log p, and which pairs are real.
    """
    xp = array_module(q)
    q, k = without_padding(q, mask), without_padding(k, mask)
    real = mask[:, None, :, None] & mask[:, None, None, :]
    weights = xp.where(real, weights, 0)
    S = q @ k.swapaxes(-1, -2) + eps  # (B, H, n, n)
    Z = xp.where(mask[:, None, :, None], (S * real).sum(axis=-1, keepdims=True), 1)
    nll = xp.where(real, xp.log(Z / S), 0)
    if total is None:
        total = xp.maximum(q.shape[1] * mask.sum(dtype=q.dtype), 1)

    def back(dloss):
        scale = dloss / total
        dS = (weights.sum(axis=-1, keepdims=True) / Z - weights / S) * real * scale
        return dS @ k, dS.swapaxes(-1, -2) @ q, nll * scale, None

    return (weights * nll).sum() / total, back
