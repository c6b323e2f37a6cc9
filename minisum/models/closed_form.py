"""Baselines without gradient descent: repetitions, a linear map of the window, ridge regression.

The first two share windows, normalisation and loss with `minisum.models.forecaster`. Parameters are
solved for, and the losses have no gradient, so that a training loop leaves the solution as it is.
"""

import numpy as np

from minisum.backend import array_module, constant
from minisum.layers import linear_layer
from minisum.models.base import Model
from minisum.models.forecaster import WindowModel, rows_of
from minisum.ops import mean_squared_error


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
        x, y = rows_of(batch["windows"]), rows_of(batch["targets"])
        level, scale = self.level(x)
        known = ~np.isnan(y).any(axis=1)
        return ((x - level) / scale)[known], ((y - level) / scale)[known]


class RidgeRegressor(Model):
    """y = w · numbers + b, solved and not learned: the numbers alone, without a word of the text.

    `solution` is (w, b), from `solve_ridge`. Hoerl and Kennard 1970, "Ridge regression: biased
    estimation for nonorthogonal problems".
    """

    def __init__(self, columns, inputs=1, solution=None):
        self.size, self.solution = columns * inputs, solution

    def init(self, rng):
        w, b = (np.zeros(self.size), 0.0) if self.solution is None else self.solution
        return {"W": np.asarray(w)[None], "b": np.array([b])}

    def activation_size(self, batch):
        return self.size

    def loss(self, params, batch, total):
        y = self.predict(params, batch)
        return mean_squared_error(y, batch["targets"], total=total)[0], lambda grads: None

    def predict(self, params, batch):
        numbers = batch["numbers"].reshape(len(batch["numbers"]), self.size)
        return linear_layer(params, numbers)[0][:, 0]


def solve_ridge(x, y, alpha=1.0):
    """(w (k,), b) that minimise Σ (x @ w + b - y)² + alpha |w|².   x (N, k), y (N,), float64.

    At the minimum the gradient is zero, (X.T @ X + alpha I) @ w = X.T @ y for centred X and y; the
    intercept is not shrunk and puts the means back.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    x_mean, y_mean = x.mean(axis=0), y.mean()
    centred = x - x_mean
    w = np.linalg.solve(centred.T @ centred + alpha * np.eye(x.shape[1]), centred.T @ (y - y_mean))
    return w, y_mean - x_mean @ w


def ridge(tokens, sigmas):
    """(B,): the best answers there are for these σ (B,): the mean of w·x given the examples.

    ŵ = (X.T @ X + σ² I)⁻¹ @ X.T @ y: least squares with d more examples, x = σ e_i and y = 0. For
    σ = 0 it takes every example at its word, and ŵ is the shortest of all solutions.
    """
    tokens = np.asarray(tokens, np.float64)
    X, y, asked = tokens[:, :-1, :-1], tokens[:, :-1, -1], tokens[:, -1, :-1]
    more = np.asarray(sigmas, np.float64)[:, None, None] * np.eye(X.shape[2])
    solver = np.linalg.pinv(np.concatenate([X, more], axis=1), rcond=1e-10)
    w = np.einsum("bdn,bn->bd", solver[:, :, : y.shape[1]], y)
    return (w * asked).sum(axis=1)
