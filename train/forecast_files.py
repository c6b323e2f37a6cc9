"""What a forecast run writes besides its result: errors by column and by step, and two figures."""

import numpy as np

from minisum.files import write_text
from train.forecast_baselines import host_predict, mse_and_mae
from train.run import figures
from train.run.report import csv_of

DRAWN = 6  # windows in forecasts.png


def write_columns(folder, columns, errors):
    """columns.csv. columns: names (C); errors: name -> (C,), see `by_column`."""
    write_table(folder / "columns.csv", {"column": columns} | errors)


def write_steps(folder, errors, solved, mixer):
    """horizon.csv and horizon.png: errors by steps ahead, the baselines' beside the model's."""
    everything = {name: e for name, (_, e) in solved.items()}
    if mixer not in everything:
        everything = {"this model": errors} | everything
    curves = {name: mse_and_mae(sums, axis=1) for name, sums in everything.items()}
    table = {"step": np.arange(errors.shape[1]) + 1}
    for name, (mse, mae) in curves.items():
        named = name.replace(" ", "_")
        table |= {f"{named}_mse": mse, f"{named}_mae": mae}
    write_table(folder / "horizon.csv", table)
    figures.errors_by_step(folder / "horizon.png", {name: mse for name, (mse, _) in curves.items()})


def write_table(path, columns):
    """columns: name -> values (N,)."""
    rows = zip(*(np.asarray(values).tolist() for values in columns.values()), strict=True)
    table = csv_of([dict(zip(columns, row, strict=True)) for row in rows])
    write_text(path, table)


def drawn_windows(windows):
    """(rows, batch): windows spread over the test split."""
    rows = np.linspace(0, len(windows.firsts["test"]) - 1, DRAWN).astype(int)
    return rows, windows.batch("test", rows)


def draw_windows(folder, windows, drawn, forecasts, linear):
    """forecasts.png: a column of each of the drawn windows, with its forecasts.

    linear: the linear map to draw beside the model, None for none.
    """
    (rows, batch), columns, by_model = drawn, windows.series.columns, {"this model": forecasts}
    if linear is not None:
        by_model["linear"] = host_predict(linear)(batch)
    panels = []
    for i in range(len(rows)):
        c, times = i % len(columns), windows.series.times
        first = windows.firsts["test"][rows[i]]
        past, truth, *ahead = (
            windows.mean[c] + windows.deviation[c] * values[i, :, c]
            for values in (batch["windows"], batch["targets"], *by_model.values())
        )
        named = dict(zip(by_model, ahead, strict=True))
        when = f"from {times[first]}" if times else f"from row {first + 1}"
        panels.append((when, columns[c], past, truth, named))
    figures.forecasts(folder / "forecasts.png", panels, 2 * windows.horizon)
