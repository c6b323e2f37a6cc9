"""Feature maps φ that sharpen: powers and products of channels make most φ(q)·φ(k) small.

All map heads of queries or keys (B, H, n, h). `minisum.mixers.linear_attention` names them.
"""

from minisum.backend import array_module


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
