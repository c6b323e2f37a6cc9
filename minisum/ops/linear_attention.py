"""Linear attention: softmax's exponential replaced by a product of features, q·k >= 0.

Katharopoulos et al. 2020, "Transformers are RNNs", equations 4 to 12.
"""

from minisum.backend import array_module
from minisum.ops.products import causal_product, full_product


def kernel_attention(q, k, v, state=None, causal=False, eps=1e-6, clamp=False):
    """y_t = Σ_s (q_t·k_s) v_s / D_t, D_t = Σ_s q_t·k_s + eps, over all s or, if causal, s <= t.

    q, k (B, H, n, K) features, not negative, v (B, H, n, V), state (B, H, K, V + 1) or None for
    the start of the text -> y (B, H, n, V) and the state after the last token. With `clamp`,
    D_t = max(Σ, eps) instead.

    Numerator and denominator are one product: append 1 to every value, and the last column of
    the sum is the denominator. Time O(n K V), state K (V + 1) per head.

    Quotient rule: the numerators get dy / D, the denominator -Σ_V dy ⊙ y / D, or 0 where clamped.
    From there dq, dk, [dv, 0] and dstate are the product's; the column of ones is constant.

    Saved: y, D, what was clamped, and what the product saves of q, k and [v 1].
    """
    xp = array_module(q)
    ones = xp.ones((*v.shape[:-1], 1), v.dtype)
    product = causal_product if causal else full_product
    (sums, last), back_product = product(q, k, xp.concatenate([v, ones], axis=-1), state=state)
    total = sums[..., -1:]
    D = xp.maximum(total, eps) if clamp else total + eps
    clamped = total < eps if clamp else None
    y = sums[..., :-1] / D

    def back(gradients):
        dy, dlast = gradients
        dtop = dy / D
        dtotal = -(dtop * y).sum(axis=-1, keepdims=True)
        if clamp:
            dtotal = xp.where(clamped, 0, dtotal)
        dsums = xp.concatenate([dtop, dtotal], axis=-1)
        dq, dk, dv, *_, dstate = back_product((dsums, dlast))
        return dq, dk, dv[..., :-1], dstate

    return (y, last), back


def elu_plus_one(x):
    """y = x + 1 where x > 0, else eˣ: positive features, smooth at 0.   Any shape.

    dx = dy where x > 0, else dy ⊙ eˣ. (Taken literally, elu(x) + 1 rounds to 0 in float32 at -17.)

    Saved: x.
    """
    xp = array_module(x)

    def back(dy):
        return dy * xp.exp(xp.minimum(x, 0))

    return xp.where(x > 0, x + 1, xp.exp(xp.minimum(x, 0))), back
