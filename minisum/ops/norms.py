"""Rescaling each token's vector to a common size.

Both gradients follow one pattern. The output is the input divided by its own size, so pushing an
input along itself changes nothing: the backward pass takes the incoming gradient and removes the
part that points that way (and, for layer norm, the part that shifts all entries alike).
"""

from minisum.backend import accumulator, array_module


def layer_norm(x, gain, bias, eps=1e-5):
    """y = gain ⊙ x̂ + bias, x̂ = (x - mean) r, r = 1/√(variance + eps).

    x (..., d), gain (d), bias (d) -> y like x.
    Mean and (biased) variance run over the last axis. Ba, Kiros and Hinton 2016.

    With g = dy ⊙ gain: dx = r (g - mean(g) - x̂ mean(g ⊙ x̂)); dgain = Σ dy ⊙ x̂; dbias = Σ dy.

    Saved: x, gain, mean and r (one number each a token); x̂ is made again from them.
    """
    xp = array_module(x)
    wide = accumulator(x.dtype)
    mean = x.mean(axis=-1, keepdims=True, dtype=wide)
    centred = x - mean
    r = 1 / xp.sqrt((centred * centred).mean(axis=-1, keepdims=True, dtype=wide) + eps)
    y = (centred * r * gain + bias).astype(x.dtype, copy=False)

    def back(dy):
        normed = (x - mean) * r
        g = dy * gain
        along = (g * normed).mean(axis=-1, keepdims=True)
        dx = r * (g - g.mean(axis=-1, keepdims=True) - normed * along)
        tokens = tuple(range(x.ndim - 1))
        return dx, (dy * normed).sum(axis=tokens), dy.sum(axis=tokens, dtype=wide)

    return y, back


def rms_norm(x, gain, eps=1e-6):
    """y = gain ⊙ x r, r = 1/√(mean(x²) + eps).   x (..., d), gain (d)

    Layer norm without centring. Zhang and Sennrich 2019.

    With g = dy ⊙ gain: dx = r g - x r³ mean(g ⊙ x); dgain = Σ dy ⊙ x r.

    Saved: x, gain, r (one number a token).
    """
    xp = array_module(x)
    r = 1 / xp.sqrt((x * x).mean(axis=-1, keepdims=True, dtype=accumulator(x.dtype)) + eps)
    y = (x * r * gain).astype(x.dtype, copy=False)

    def back(dy):
        g = dy * gain
        dx = r * g - x * r**3 * (g * x).mean(axis=-1, keepdims=True)
        return dx, (dy * x * r).sum(axis=tuple(range(x.ndim - 1)))

    return y, back
