"""What a forecast is compared with, none of it trained: two linear maps and two repetitions.

Errors are counted over known targets only: as sums that add up over batches, in standardised units
until a column is looked at by itself.
"""

import numpy as np

from minisum.models.series_baselines import LinearMap, Repeat
from minisum.text import batches

SOLVED = ("linear", "nlinear", "seasonal", "last_value")
ALPHAS = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)  # of the linear maps, chosen by validation
MOST_ROWS = 200_000  # that a linear map is solved on


def solve(windows, normalise, season):
    """name -> (model, its errors on the test windows).

    windows: data.sets.forecast.Windows. normalise: that of the map called linear; nlinear subtracts
    the last value.
    """
    sizes = windows.window, windows.horizon
    models = {
        "linear": fit_linear_map(windows, normalise),
        "nlinear": fit_linear_map(windows, "last"),
        "seasonal": Repeat(*sizes, season),
        "last_value": Repeat(*sizes),
    }
    return {name: (m, errors_of(host_predict(m), windows, "test")) for name, m in models.items()}


def fit_linear_map(windows, normalise):
    """The linear map of the window, its shrinkage chosen on the validation windows."""
    model = LinearMap(windows.window, windows.horizon, normalise)
    train, val = (len(windows.firsts[split]) for split in ("train", "val"))
    channels = len(windows.series.columns)
    chunks = batches.batches(np.arange(0, train, -(-train * channels // MOST_ROWS)), 128)
    moments = model.moments(windows.batch("train", rows) for rows in chunks)

    def val_mse(solution):
        model.solution = solution
        step = max(1, val * channels // 20_000)
        return mse_and_mae(errors_of(host_predict(model), windows, "val", step))[0]

    model.solution = min((model.solve(*moments, alpha) for alpha in ALPHAS), key=val_mse)
    return model


def host_predict(model):
    """predict(batch) of a model without parameters to train, on the host."""
    params = model.init(None)
    return lambda batch: model.predict(params, batch)


def errors_of(predict, windows, split, step=1):
    """The error sums of `predict` on the windows of a split, or on every `step`-th."""
    errors = 0
    for rows in batches.batches(np.arange(0, len(windows.firsts[split]), step), 128):
        batch = windows.batch(split, rows)
        errors = errors + error_sums(predict(batch), batch["targets"])
    return errors


def error_sums(forecasts, targets):
    """(3, horizon, C): squared errors, absolute ones and their count, over B; gaps do not count."""
    known = ~np.isnan(targets)  # (B, horizon, C), like both
    off = np.where(known, forecasts - targets, 0).astype(np.float64)
    return np.stack([off * off, np.abs(off), known]).sum(axis=1)


def mse_and_mae(sums, axis=None):
    """Means of error sums: over everything, or over the steps (axis 0) or the columns (1)."""
    squared, absolute, count = (part.sum(axis) for part in sums)
    if axis is not None:
        count = np.maximum(count, 1)
    return squared / count, absolute / count


def by_column(sums, deviation):
    """name -> (C,): standardised errors, and those in each column's own units."""
    mse, mae = mse_and_mae(sums, axis=0)
    in_units = {"rmse_in_units": np.sqrt(mse) * deviation, "mae_in_units": mae * deviation}
    return {"mse": mse, "mae": mae, **in_units}
