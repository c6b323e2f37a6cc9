"""Ridge regression: on the numbers of a table, and on the examples in a context.

Parameters are solved for, and the loss has no gradient, so that a training loop leaves the solution
as it is.
"""

import numpy as np

from minisum.layers import linear_layer
from minisum.models.base import Model
from minisum.ops import mean_squared_error


class RidgeRegressor(Model):
    """y = w · numbers + b in closed form: the numbers alone, without the text.

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
    """(B,): the optimal answers for known σ (B,): the mean of w·x given the examples.

    ŵ = (X.T @ X + σ² I)⁻¹ @ X.T @ y: least squares with d more examples, x = σ e_i and y = 0. For
    σ = 0 the examples are fitted exactly if possible, and ŵ is the solution of least norm.
    """
    tokens = np.asarray(tokens, np.float64)
    X, y, asked = tokens[:, :-1, :-1], tokens[:, :-1, -1], tokens[:, -1, :-1]
    more = np.asarray(sigmas, np.float64)[:, None, None] * np.eye(X.shape[2])
    solver = np.linalg.pinv(np.concatenate([X, more], axis=1), rcond=1e-10)
    w = np.einsum("bdn,bn->bd", solver[:, :, : y.shape[1]], y)
    return (w * asked).sum(axis=1)
