"""Noisy linear regression as the Gram matrices that `minisum.models.in_context` reads.

Two averages are taken by hand, so that little is left to chance. The question x_t ~ N(0, I) is
independent of the examples: E (ŷ - ⟨w, x_t⟩)² = |ŵ - w|². And given examples and σ, w is normal
around the ridge solution ŵ_σ = (S + σ² I)⁻¹ α, so that a model's loss minus that of the oracle, who
knows σ, is

    ½ E |ŵ - w|² - ½ E |ŵ_σ - w|² = ½ E |ŵ - ŵ_σ|²

with the same gradient, no difference of large numbers, and a third of the standard error or less.
"""

import numpy as np

from data.generated.regression import Regression

# Laws of the noise: σ ~ U(0, 5) is called 5, and σ from {1, 3} is called 1+3.
LAWS = {str(top): Regression(noise=float(top), mixed=True) for top in range(8)}
LAWS |= {"1+3": Regression(noise=(1.0, 3.0)), "1+3+5": Regression(noise=(1.0, 3.0, 5.0))}
DIMS, PAIRS = Regression.dims, Regression.pairs
TEST_STREAM, TUNING_STREAM = 2**31, 2**31 + 1  # not the seeds of any model
TEST_ROWS = 1000  # sequences of a test at a time
LEVELS = 15


def title(name):
    """U(0, 5) or {1, 3}"""
    return f"U(0, {name})" if LAWS[name].mixed else "{" + name.replace("+", ", ") + "}"


def largest_noise(law):
    return float(np.max(law.noise))


def levels(law):
    """Noise levels from 0 to 1 above what the law draws, for a profile of the loss."""
    return np.linspace(0, largest_noise(law) + 1, LEVELS)


def noise_variance(law):
    """E σ²"""
    return law.noise**2 / 3 if law.mixed else float(np.mean(np.square(law.noise)))


def draw(streams, rows):
    """x (S, B, n, d), w (S, B, d), ξ/σ (S, B, n), u (S, B) for S random streams; no questions."""
    drawn = [Regression().standard(np.random.default_rng(stream), rows) for stream in streams]
    x, w, noise, u = (np.stack(parts) for parts in zip(*drawn, strict=True))
    return x[:, :, :PAIRS], w, noise, u


def tests(rows):
    """The draws of `rows` test sequences, as from `draw` with S = 1, TEST_ROWS at a time."""
    for start in range(0, rows, TEST_ROWS):
        yield draw([[TEST_STREAM, start]], min(TEST_ROWS, rows - start))


def scales(laws):
    """(N,): the standard deviation of y under each law, the unit in which the models read it."""
    return np.sqrt([DIMS + noise_variance(law) for law in laws])


def problems(drawn, sigmas, units, xp=np):
    """G (N·S, B, D, D) of the examples (x, y / unit), and their ŵ_σ / unit (N·S, B, d).

    sigmas (N, S, B): those of N laws, for the same draws; units (N,).
    """
    x, w, noise, _ = (xp.asarray(part) for part in drawn)
    sigmas, units = xp.asarray(sigmas), xp.asarray(units)[:, None, None]
    y = ((x @ w[..., None])[..., 0] + sigmas[..., None] * noise) / units[..., None]  # (N, S, B, n)
    x = xp.broadcast_to(x, (*y.shape, DIMS))
    tokens = xp.concatenate([x, y[..., None]], axis=-1)
    G = (tokens.swapaxes(-1, -2) @ tokens / PAIRS).reshape(-1, *y.shape[2:3], DIMS + 1, DIMS + 1)
    ridge = (sigmas**2 / PAIRS).reshape(*G.shape[:2], 1, 1) * xp.eye(DIMS)
    return G, xp.linalg.solve(G[..., :-1, :-1] + ridge, G[..., :-1, -1:])[..., 0]
