"""Feature maps φ like softmax attention's exponential: φ(q)·φ(k) in place of exp(q·k / √h).

All map heads of queries or keys (B, H, n, h). `minisum.mixers.linear_attention` names them.
"""

import math

from minisum.backend import array_module, constant
from minisum.ops.linear import linear
from minisum.ops.softmax_attention import softmax

# The largest exponent of an unbounded feature: (e^30)² n h does not overflow in float32.
LARGEST = 30.0


def hedgehog(x, W, b):
    """y = softmax([2z, -2z]), z = x @ W.T + b, over all 2h features.   x (.., h) -> y (.., 2h)

    W (h, h), b (h), the same in all heads. Zhang et al. 2024, "The Hedgehog & the Porcupine", as in
    the fla library (paper: exponentials, not normalised; the authors' LoLCATs: softmax of z and of
    -z, a W for each head).

    Through the softmax u = y ⊙ (dy - Σ dy ⊙ y), and through its halves dz = 2 (u₁ - u₂); then
    dx = dz @ W, dW = Σ dz.T @ x, db = Σ dz.

    Saved: x, W, y.
    """
    xp, h = array_module(x), x.shape[-1]
    z, back_linear = linear(x, W, b)
    y = softmax(xp.concatenate([2 * z, -2 * z], axis=-1))

    def back(dy):
        u = y * (dy - (dy * y).sum(axis=-1, keepdims=True))
        return back_linear(2 * (u[..., :h] - u[..., h:]))

    return y, back


def favor(x, omega):
    """y = (exp(min(ω·x̃ - ‖x̃‖² / 2, 30)) + 1e-4) / √m for the rows ω of omega, x̃ = x h^(-1/4).

    x (.., h) -> y (.., m), positive random features: where omega (m, h), a constant host array, is
    drawn from the normal distribution, the mean of φ(q)·φ(k) is exp(q·k / √h), but for the 1e-4.
    Choromanski et al. 2021, "Rethinking attention with Performers", lemma 1. (The released code
    subtracts from the exponents the largest ω·x̃ of the query, or of all the text's keys: a causal
    layer would see the future, and a text read in parts would have other features.)

    With E the exponential and u = dy ⊙ E / √m, 0 where the exponent is clipped:
    dx = h^(-1/4) (u @ omega - x̃ Σ u).

    Saved: x̃, omega, E, which exponents are clipped.
    """
    xp, scale = array_module(x), x.shape[-1] ** -0.25
    omega, x = constant(omega, xp, x.dtype), x * scale
    directions, back_linear = linear(x, omega)
    z = directions - (x * x).sum(axis=-1, keepdims=True) / 2
    clipped = z > LARGEST
    E = xp.exp(xp.minimum(z, LARGEST))
    root = 1 / math.sqrt(len(omega))

    def back(dy):
        u = xp.where(clipped, 0, dy * E * root)
        return scale * (back_linear(u)[0] - x * u.sum(axis=-1, keepdims=True))

    return (E + 1e-4) * root, back


def log_normal_query(x, rate):
    """y = softmax(α x) over the h channels, α = rate (H), one per head.   x (B, H, n, h)

    y like x: e^{αx} as in Nahshan, Kampeas and Haleva 2023, "Linear log-normal attention", over its
    sum, which cancels in attention but avoids overflow, and queries whose features are all 0.

    With u = y ⊙ (dy - Σ dy ⊙ y): dx = α u and drate = Σ u ⊙ x.

    Saved: x, rate, y.
    """
    rate = rate[:, None, None]
    y = softmax(rate * x)

    def back(dy):
        u = y * (dy - (dy * y).sum(axis=-1, keepdims=True))
        return rate * u, (u * x).sum(axis=(0, 2, 3))

    return y, back


def log_normal_key(x, rate):
    """y = exp(min(β x, 30)), β = rate (H), one per head.   x (B, H, n, h) -> y like x

    (Released: less the text's largest exponent, which cancels but is unknown to a causal layer.)

    With u = dy ⊙ y, 0 where the exponent is clipped: dx = β u and drate = Σ u ⊙ x.

    Saved: x, rate, y, which exponents are clipped.
    """
    xp, rate = array_module(x), rate[:, None, None]
    z = rate * x
    clipped = z > LARGEST
    y = xp.exp(xp.minimum(z, LARGEST))

    def back(dy):
        u = xp.where(clipped, 0, dy * y)
        return rate * u, (u * x).sum(axis=(0, 2, 3))

    return y, back


def taylor(x):
    """y = [1, x / h^¼, x ⊙ x / √(2h), x_i x_j / √h for i < j], so that φ(q)·φ(k) = 1 + s + s² / 2.

    s = q·k / √h: the exponential's series up to the square, never below 1/2. x (.., h) ->
    (.., 1 + h + h (h + 1) / 2). Arora et al. 2024, "Simple linear attention language models balance
    the recall-throughput tradeoff" (Based), section 4.1.

    dx = dy₂ / h^¼ + √(2/h) x ⊙ dy₃; for each pair i < j with gradient g = dy₄ / √h, x_i gets x_j g
    and x_j gets x_i g.

    Saved: x.
    """
    xp, h = array_module(x), x.shape[-1]
    pairs = [x[..., i : i + 1] * x[..., i + 1 :] for i in range(h - 1)]
    squares = x * x / math.sqrt(2 * h)
    parts = [xp.ones_like(x[..., :1]), x / h**0.25, squares, *(p / math.sqrt(h) for p in pairs)]

    def back(dy):
        dx = dy[..., 1 : h + 1] / h**0.25 + math.sqrt(2 / h) * x * dy[..., h + 1 : 2 * h + 1]
        start = 2 * h + 1
        for i in range(h - 1):
            dpair = dy[..., start : start + h - 1 - i] / math.sqrt(h)
            start += h - 1 - i
            dx[..., i] += (dpair * x[..., i + 1 :]).sum(axis=-1)
            dx[..., i + 1 :] += dpair * x[..., i : i + 1]
        return dx

    return xp.concatenate(parts, axis=-1), back
