"""What a forecaster gets wrong, by step ahead and by column, and how that is written down."""

import csv

import numpy as np


class Errors:
    """Squared and absolute errors by step and column, added up over batches; gaps do not count."""

    def __init__(self, horizon, columns):
        self.squared, self.absolute, self.count = np.zeros((3, horizon, columns))

    def add(self, forecasts, targets):
        """Both (B, horizon, C)."""
        known = ~np.isnan(targets)
        off = np.where(known, forecasts - targets, 0).astype(np.float64)
        self.squared += (off * off).sum(axis=0)
        self.absolute += np.abs(off).sum(axis=0)
        self.count += known.sum(axis=0)

    def overall(self):
        count = self.count.sum()
        return float(self.squared.sum() / count), float(self.absolute.sum() / count)

    def by_step(self):
        """MSE and MAE (horizon,) each, over all columns."""
        count = np.maximum(self.count.sum(axis=1), 1)
        return self.squared.sum(axis=1) / count, self.absolute.sum(axis=1) / count

    def by_column(self, deviation):
        """A dict for each column: standardised errors, and those in its own units."""
        count = np.maximum(self.count.sum(axis=0), 1)
        mse, mae = self.squared.sum(axis=0) / count, self.absolute.sum(axis=0) / count
        return [
            {
                "mse": float(mse[c]),
                "mae": float(mae[c]),
                "rmse_in_units": float(np.sqrt(mse[c]) * deviation[c]),
                "mae_in_units": float(mae[c] * deviation[c]),
            }
            for c in range(len(deviation))
        ]


def write_table(path, rows):
    """rows (dicts with the same keys) as csv."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def steps_table(curves):
    """curves: name -> (MSE, MAE), (horizon,) each. A row (dict) a step ahead, counted from 1."""
    horizon = len(next(iter(curves.values()))[0])
    columns = {
        f"{name.replace(' ', '_')}_{metric}": values
        for name, both in curves.items()
        for metric, values in zip(("mse", "mae"), both, strict=True)
    }
    return [
        {"step": h + 1} | {name: float(values[h]) for name, values in columns.items()}
        for h in range(horizon)
    ]
