"""Rescaling each token's vector to a common size.

Both gradients follow one pattern. The output is the input divided by its own size, so pushing an
input along itself changes nothing: the backward pass takes the incoming gradient and removes the
part that points that way (and, for layer norm, the part that shifts all entries alike).
"""

from minisum.backend import array_module
from minisum.fast import cuda as kernels


def layer_norm(x, gain, bias, eps=1e-5):
    """y = gain ⊙ x̂ + bias, x̂ = r (x - mean), r = 1/√(variance + eps).

    x (..., d), gain (d), bias (d) -> y like x.
    Mean and (biased) variance run over the last axis. Ba, Kiros and Hinton 2016.

    With g = dy ⊙ gain: dx = r (g - mean(g) - mean(g ⊙ x̂) x̂); dgain = Σ dy ⊙ x̂; dbias = Σ dy.

    Saved: x, gain, mean and r (one number each a token); x̂ is made again from them.
    """
    if kernels.runs_on(x, gain):
        return _layer_norm_fused(x, gain, bias, eps)
    xp = array_module(x)
    mean = x.mean(axis=-1, keepdims=True)
    y = x - mean
    r = 1 / xp.sqrt(_row_mean(y, y) + eps)
    y *= r
    y *= gain
    y += bias

    def back(dy):
        normed = x - mean
        normed *= r
        tokens = tuple(range(x.ndim - 1))
        dgain = (dy * normed).sum(axis=tokens)
        dbias = dy.sum(axis=tokens)
        dx = dy * gain
        along = _row_mean(dx, normed)
        dx -= dx.mean(axis=-1, keepdims=True)
        normed *= along
        dx -= normed
        dx *= r
        return dx, dgain, dbias

    return y, back


def _row_mean(a, b):
    """The mean of a ⊙ b over the last axis, which stays, without an array for a ⊙ b."""
    xp = array_module(a)
    return xp.einsum("...d,...d->...", a, b)[..., None] / a.shape[-1]


def _layer_norm_fused(x, gain, bias, eps):
    """`layer_norm` in one GPU kernel forward and two backward."""
    rows, shape = x.reshape(-1, x.shape[-1]), x.shape
    y, mean, r = kernels.layer_norm(rows, gain, bias, eps)

    def back(dy):
        dx, dgain, dbias = kernels.layer_norm_back(dy.reshape(rows.shape), rows, gain, mean, r)
        return dx.reshape(shape), dgain, dbias

    return y.reshape(shape), back


def rms_norm(x, gain, eps=1e-6):
    """y = gain ⊙ r x, r = 1/√(mean(x²) + eps).   x (..., d), gain (d)

    Layer norm without centring. Zhang and Sennrich 2019.

    With g = dy ⊙ gain: dx = r g - r³ mean(g ⊙ x) x; dgain = Σ dy ⊙ r x.

    Saved: x, gain, r (one number a token).
    """
    xp = array_module(x)
    r = 1 / xp.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    y = x * r * gain

    def back(dy):
        g = dy * gain
        dx = r * g - x * r**3 * (g * x).mean(axis=-1, keepdims=True)
        dgain = (dy * x * r).sum(axis=tuple(range(x.ndim - 1)))
        return dx, dgain

    return y, back
