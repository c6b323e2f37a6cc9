"""Rescaling each token's vector to a common size.

Both gradients follow one pattern. The output is the input divided by its own size, so scaling the
input changes nothing: the backward pass removes from the incoming gradient the part along the input
(and, for layer norm, the part that shifts all entries equally).
"""

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.linear import sum_leading


@has_fast_forms
def layer_norm(x, gain, bias, eps=1e-5):
    """y = gain ⊙ x̂ + bias, x̂ = r (x - mean), r = 1/√(variance + eps).

    x (..., d), gain (d), bias (d) -> y like x.
    Mean and (biased) variance run over the last axis. Ba, Kiros and Hinton 2016.

    With g = dy ⊙ gain: dx = r (g - mean(g) - mean(g ⊙ x̂) x̂); dgain = Σ dy ⊙ x̂; dbias = Σ dy.

    Saved: x, gain, mean and r (one number each per token); x̂ is computed again from them.
    """
    xp = array_module(x)
    mean = x.mean(axis=-1, keepdims=True)  # (..., 1)
    r = 1 / xp.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + eps)

    def back(dy):
        normed, g = (x - mean) * r, dy * gain
        along = (g * normed).mean(axis=-1, keepdims=True)
        dx = r * (g - g.mean(axis=-1, keepdims=True) - along * normed)
        tokens = tuple(range(x.ndim - 1))
        return dx, (dy * normed).sum(axis=tokens), dy.sum(axis=tokens)

    return gain * ((x - mean) * r) + bias, back


def rms_norm(x, gain, eps=1e-6):
    """y = gain ⊙ r x, r = 1/√(mean(x²) + eps).   x (..., d), gain (d) -> y like x

    Layer norm without centring. Zhang and Sennrich 2019.

    With g = dy ⊙ gain: dx = r g - r³ mean(g ⊙ x) x; dgain = Σ dy ⊙ r x.

    Saved: x, gain, r (one number per token).
    """
    xp = array_module(x)
    r = 1 / xp.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    y = x * r * gain

    def back(dy):
        g = dy * gain
        dx = r * g - x * r**3 * (g * x).mean(axis=-1, keepdims=True)
        return dx, sum_leading(dy * x * r)

    return y, back
