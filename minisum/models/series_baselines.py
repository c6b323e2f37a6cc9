"""Baselines of a forecaster: repetitions, and linear maps of the window in closed form.

They share windows, normalisation and loss with `minisum.models.forecaster`. Their losses have no
gradient, so that a training loop leaves the solution as it is.
"""

import numpy as np

from minisum.backend import array_module, constant
from minisum.layers import linear_layer
from minisum.models.forecaster import WindowModel, rows_of


class Repeat(WindowModel):
    """y_h = the value one season before: x_{L - season + h mod season}. Season 1 repeats the last.

    season in time steps, at most the window.
    """

    def __init__(self, window, horizon, season=1):
        super().__init__(window, horizon)
        self.index = window - season + np.arange(horizon) % season

    def init(self, rng):
        return {}

    def rows(self, params, series, noise):
        index = constant(self.index, array_module(series))
        return series[:, index], lambda dy, grads: None


class LinearMap(WindowModel):
    """y = x @ W.T + b: each step ahead is a weighted sum of the window, the same for all channels.

    Zeng et al. 2023, "Are transformers effective for time series forecasting?": Linear, and with
    normalise="last" NLinear. `solution` is (W (horizon, L), b (horizon,)), from `moments` and
    `solve`.
    """

    def __init__(self, window, horizon, normalise="none", solution=None):
        super().__init__(window, horizon, normalise)
        self.solution = solution

    def init(self, rng):
        if self.solution is None:
            return {"W": np.zeros((self.horizon, self.window)), "b": np.zeros(self.horizon)}
        W, b = self.solution
        return {"W": W, "b": b}

    def rows(self, params, series, noise):
        return linear_layer(params, series)[0], lambda dy, grads: None

    def moments(self, batches):
        """Σ X.T @ X (L + 1, L + 1) and Σ X.T @ Y (L + 1, horizon), in float64.

        The forecast of a window x of level m and scale s is s (W @ (x - m) / s + b) + m. Its error
        is therefore that of W @ (x - m) + s b as a forecast of y - m: X has the rows [x - m, s] and
        Y the rows y - m. Nothing is divided by s, and so a flat window, which has hardly any
        scale, has hardly any weight on b.

        batches: dicts of windows (B, L, C) and targets (B, horizon, C). Rows with a gap in y are
        left out.
        """
        gram = np.zeros((self.window + 1, self.window + 1))
        cross = np.zeros((self.window + 1, self.horizon))
        for batch in batches:
            x, y = (rows_of(batch[name]).astype(np.float64) for name in ("windows", "targets"))
            known = ~np.isnan(y).any(axis=1)
            x, y = x[known], y[known]
            level, scale = self.level(x)
            X = np.concatenate([x - level, np.broadcast_to(scale, (len(x), 1))], axis=1)
            gram += X.T @ X
            cross += X.T @ (y - level)
        return gram, cross

    def solve(self, gram, cross, alpha):
        """(W, b) that minimise Σ |X @ [W, b].T - Y|² + alpha Σ s² |W|²; b is not shrunk.

        Where windows are divided by s, Σ s² makes alpha a number without a unit.
        """
        shrink = alpha * gram[-1, -1] * np.eye(self.window + 1)
        shrink[-1, -1] = 0
        # Least squares, since a series of constants leaves directions that nothing decides.
        solved = np.linalg.lstsq(gram + shrink, cross, rcond=None)[0]
        return solved[:-1].T, solved[-1]
