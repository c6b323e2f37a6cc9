"""Feature maps φ: linear attention weighs by φ(q)·φ(k), softmax attention by exp(q·k / √h).

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

    W (h, h), b (h), the same in all heads. Zhang et al. 2024, "The Hedgehog & the Porcupine", in
    the form of the flash-linear-attention library (in the paper: exponentials, not normalised; in
    the authors' LoLCATs: a softmax of z and one of -z, and a W for each head).

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


def focused(x, s, power=3):
    """y = c ‖r‖ / ‖c‖, c = r^power, r = (relu(x) + 1e-6) / softplus(s).   x (B, H, n, h), s (H, h)

    y (like x) has the norm of r, but points more to its largest entries; norms run over all heads.
    Han et al. 2023, "FLatten Transformer", equations 5 and 6, with the released code's softplus.

    c is computed from r / m, m the largest entry of r, so that powers do not overflow; y does not
    change with m, which counts as a constant: dc = (‖r‖ / ‖c‖) (dy - c (dy·c) / ‖c‖²),
    dr = power r^(power - 1) ⊙ dc + (dy·c / ‖c‖) r / ‖r‖; dx = dr / softplus(s) where x > 0, and
    ds = -σ(s) Σ dr ⊙ r / softplus(s).

    Saved: x, s, softplus(s), r / m, m.
    """
    xp = array_module(x)
    s = s[:, None]
    soft = xp.logaddexp(s, 0)
    r = (xp.maximum(x, 0) + 1e-6) / soft
    m = r.max(axis=(1, 3), keepdims=True)
    r = r / m

    def total(a):
        return a.sum(axis=(1, 3), keepdims=True)

    def back(dy):
        c, size = r**power, xp.sqrt(total(r * r))
        width = xp.sqrt(total(c * c))
        along = total(dy * c) / width
        dc = (size / width) * (dy - c * along / width)
        dr = power * r ** (power - 1) * dc + along * r / size
        dx = dr / soft
        ds = -(dx * (r * m)).sum(axis=(0, 2)) / (1 + xp.exp(-s))[:, 0]
        return xp.where(x > 0, dx, 0), ds

    c = r**power
    return c * m * xp.sqrt(total(r * r) / total(c * c)), back


def favor(x, omega):
    """y = (exp(min(ω·x̃ - ‖x̃‖² / 2, 30)) + 1e-4) / √m for the rows ω of omega, x̃ = x h^(-1/4).

    x (.., h) -> y (.., m). With omega (m, h) drawn from the normal distribution, the mean of
    φ(q)·φ(k) is exp(q·k / √h), but for the 1e-4. omega is a host array and a constant. Choromanski et
    al. 2021, "Rethinking attention with Performers", lemma 1. (The released code subtracts from the
    exponents the largest ω·x̃ of a query, or of all the text's keys: a causal layer would see the
    future, and a text read in parts would have other features.)

    With E the exponential and u = dy ⊙ E / √m, 0 where the exponent is held: dx = h^(-1/4)
    (u @ omega - x̃ Σ u).

    Saved: x̃, omega, E, which exponents are held.
    """
    xp, scale = array_module(x), x.shape[-1] ** -0.25
    omega, x = constant(omega, xp, x.dtype), x * scale
    directions, back_linear = linear(x, omega)
    z = directions - (x * x).sum(axis=-1, keepdims=True) / 2
    held = z > LARGEST
    E = xp.exp(xp.minimum(z, LARGEST))
    root = 1 / math.sqrt(len(omega))

    def back(dy):
        u = xp.where(held, 0, dy * E * root)
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

    (The released code subtracts the largest exponent of the text, which a causal layer cannot
    know; it cancels in attention.)

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


def norm_aware_query(x):
    """y = [f where x > 0, f where x < 0], f = |x / ‖x‖|^p, p = 3 (1/2 + tanh ‖x‖).   x (.., h)

    y (.., 2h). The longer the query, the larger p and the sharper its attention. ‖x‖ is
    √(x·x + 1e-24). Meng et al. 2025, "NaLaFormer: norm-aware linear attention", as released.

    With u = x / ‖x‖ and df the half of dy that x's sign selects: du = df p |u|^(p-1) sign(x), and
    dp = Σ df f log|u|, 0 where u = 0; dx = (du - u (du·u)) / ‖x‖ + 3 (1 - tanh² ‖x‖) dp u.

    Saved: x, ‖x‖.
    """
    xp, h = array_module(x), x.shape[-1]
    norm = xp.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-24)
    power = 1.5 + 3 * xp.tanh(norm)
    f = abs(x / norm) ** power

    def back(dy):
        u, power = x / norm, 1.5 + 3 * xp.tanh(norm)
        df = xp.where(x > 0, dy[..., :h], xp.where(x < 0, dy[..., h:], 0))
        size = xp.where(u == 0, 1, abs(u))
        dpower = (df * size**power * xp.log(size)).sum(axis=-1, keepdims=True)
        du = df * power * size ** (power - 1) * xp.sign(x)
        across = (du - u * (du * u).sum(axis=-1, keepdims=True)) / norm
        return across + 3 * (1 - xp.tanh(norm) ** 2) * dpower * u

    return xp.concatenate([xp.where(x > 0, f, 0), xp.where(x < 0, f, 0)], axis=-1), back


def norm_aware_key(x):
    """y = [relu(x)³, relu(-x)³], the keys' map beside `norm_aware_query`.   x (.., h) -> (.., 2h)

    dx = 3 x² ⊙ (dy₁ where x > 0, -dy₂ where x < 0).

    Saved: x.
    """
    xp, h = array_module(x), x.shape[-1]

    def back(dy):
        return 3 * x * x * xp.where(x > 0, dy[..., :h], -dy[..., h:])

    return xp.concatenate([xp.maximum(x, 0) ** 3, xp.maximum(-x, 0) ** 3], axis=-1), back


def dpfp(x, nu=3):
    """y = [z ⊙ roll(z, 1), ..., z ⊙ roll(z, nu)], z = [relu(x), relu(-x)].   x (.., h) -> (.., 2hν)

    Products of neighbouring channels, mostly zero, so that more keys can be orthogonal.
    Schlag, Irie and Schmidhuber 2021, "Linear transformers are secretly fast weight programmers",
    equation 37.

    With dy_j the j-th part of dy: dz = Σ_j dy_j ⊙ roll(z, j) + roll(dy_j ⊙ z, -j), and dx = dz₁
    where x > 0, -dz₂ where x < 0.

    Saved: x, z.
    """
    xp, h = array_module(x), x.shape[-1]
    z = xp.concatenate([xp.maximum(x, 0), xp.maximum(-x, 0)], axis=-1)
    shifts = range(1, nu + 1)

    def back(dy):
        parts = (dy[..., 2 * h * (j - 1) : 2 * h * j] for j in shifts)
        dz = sum(
            part * xp.roll(z, j, axis=-1) + xp.roll(part * z, -j, axis=-1)
            for j, part in zip(shifts, parts, strict=True)
        )
        return dz[..., :h] * (x > 0) - dz[..., h:] * (x < 0)

    return xp.concatenate([z * xp.roll(z, j, axis=-1) for j in shifts], axis=-1), back


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
