"""In-context linear regression: fit a line to the examples in the text, and apply it.

One example with d = 2 and 3 pairs, noise apart, for w = (1, -2); a token is (x, y), a column each:

    x    1.0   0.5  -1.0 |  2.0       the last token asks
    x    0.0   1.0   1.0 |  1.0       for its y,
    y    1.0  -1.5  -3.0 |  0         which is 2·1 - 1·2 = 0

x_i ~ N(0, I), w ~ N(0, I), y_i = w·x_i + ξ_i with ξ_i ~ N(0, σ²). The target is w·x of the last
token without noise, so that a perfect error is zero. All sequences have the same σ, or each draws
its own, from U(0, noise) or one of several levels, and the examples tell how noisy they are.

Source: Vladymyrov et al. 2024, "Linear Transformers are Versatile In-Context Learners".
"""

from dataclasses import dataclass

import numpy as np

from minisum.errors import UserError


@dataclass(frozen=True)
class Regression:
    """dims d, pairs n before the question; noise: σ, its upper bound if `mixed`, or its levels."""

    dims: int = 10
    pairs: int = 20
    noise: float | tuple = 0.0
    mixed: bool = False

    def __post_init__(self):
        if self.dims < 1 or self.pairs < 1 or np.min(self.noise, initial=np.inf) < 0:
            raise UserError(f"{self} needs a dimension, a pair and noise from 0 on")

    def standard(self, rng, rows):
        """x (rows, n + 1, d), w (rows, d), ξ / σ (rows, n) and u (rows,), whatever the noise."""
        sizes = (self.pairs + 1, self.dims), (self.dims,), (self.pairs,)
        return *(rng.normal(size=(rows, *size)) for size in sizes), rng.random(rows)

    def sigmas(self, u):
        """σ for random numbers u in [0, 1)."""
        levels = np.atleast_1d(self.noise)
        return self.noise * u if self.mixed else levels[(u * len(levels)).astype(int)]

    def draw(self, rng, rows) -> dict[str, np.ndarray]:
        """x (rows, n + 1, d + 1), targets (rows,) and sigmas (rows,), float32."""
        x, w, noise, u = self.standard(rng, rows)
        sigmas, y = self.sigmas(u), np.einsum("bnd,bd->bn", x, w)
        noisy = np.pad(y[:, :-1] + sigmas[:, None] * noise, ((0, 0), (0, 1)))
        tokens = np.concatenate([x, noisy[:, :, None]], axis=2)
        named = {"x": tokens, "targets": y[:, -1], "sigmas": sigmas}
        return {name: array.astype(np.float32) for name, array in named.items()}
