"""Forecasts that every forecaster has to beat: repetitions, and one linear map of the window.

They share the windows, the normalisation and the loss of `minisum.models.forecaster`. None of them
learns by gradient descent: the linear map is solved, and its loss has no gradient.
"""

import numpy as np

from minisum.backend import array_module, constant
from minisum.layers import linear_layer
from minisum.models.forecaster import WindowModel


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

    Zeng et al. 2023, "Are transformers effective for time series forecasting?" `solution` is
    (W (horizon, L), b (horizon,)), from `moments` and `solve`.
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
        """Σ [x, 1].T @ [x, 1], Σ [x, 1].T @ y and the number of rows, of those without a gap in y.

        batches: dicts of windows (B, L, C) and targets (B, horizon, C); added up in float64.
        """
        gram = np.zeros((self.window + 1, self.window + 1))
        cross = np.zeros((self.window + 1, self.horizon))
        count = 0
        for batch in batches:
            x, y = self._rows_and_targets(batch)
            x = np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)
            gram += x.T @ x
            cross += x.T @ y
            count += len(x)
        return gram, cross, count

    def solve(self, gram, cross, count, alpha):
        """(W, b) that minimise the mean squared error + alpha |W|²; b is not shrunk."""
        shrink = alpha * count * np.eye(self.window + 1)
        shrink[-1, -1] = 0
        # Least squares, since a series of constants leaves directions that nothing decides.
        solved = np.linalg.lstsq(gram + shrink, cross, rcond=None)[0]
        return solved[:-1].T, solved[-1]

    def _rows_and_targets(self, batch):
        B, L, C = batch["windows"].shape
        series = batch["windows"].transpose(0, 2, 1).reshape(B * C, L)
        targets = batch["targets"].transpose(0, 2, 1).reshape(B * C, self.horizon)
        level, scale = self._level(series)
        known = ~np.isnan(targets).any(axis=1)
        return ((series - level) / scale)[known], ((targets - level) / scale)[known]
