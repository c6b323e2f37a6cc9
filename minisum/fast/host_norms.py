"""Layer norm in place: two arrays of x's size where the formula, taken literally, makes seven."""

import numpy as np

from minisum.fast import one_real_type


def layer_norm(x, gain, bias, eps=1e-5):
    if not one_real_type(x, gain, bias):
        return NotImplemented
    mean = x.mean(axis=-1, keepdims=True)
    y = x - mean
    # The mean of a product over the last axis, without an array for the product.
    r = 1 / np.sqrt(np.einsum("...d,...d->...", y, y)[..., None] / x.shape[-1] + eps)
    y *= r
    y *= gain
    y += bias

    def back(dy):
        normed = x - mean
        normed *= r
        tokens = tuple(range(x.ndim - 1))
        dgain, dbias = (dy * normed).sum(axis=tokens), dy.sum(axis=tokens)
        dx = dy * gain
        along = np.einsum("...d,...d->...", dx, normed)[..., None] / x.shape[-1]
        dx -= dx.mean(axis=-1, keepdims=True)
        normed *= along
        dx -= normed
        dx *= r
        return dx, dgain, dbias

    return y, back
