"""Forecast a multivariate series: python -m train.forecast

Without arguments it forecasts a generated series of known structure, with layers that look at one
patch at a time and attention last. `--mixer all` compares that with attention in every layer,
summation, no mixing at all, one linear map of the window, and two repetitions.
"""

import copy
import csv
import dataclasses
import datetime
import io
import sys
from functools import cached_property

import numpy as np

from data.sets.forecast import (
    Windows,
    fill_gaps,
    load_series,
    read_series,
    steps_in_a_day,
    time_step,
)
from data.text import batches
from minisum import backend
from minisum.errors import UserError
from minisum.models.closed_form import LinearMap, Repeat
from minisum.shards import Shards
from train.command_line import Command, main
from train.forecast_config import SEASON, SOLVED, TRAINED, ForecastConfig, build_model, settle
from train.forecast_errors import Errors, steps_table, write_table
from train.run import figures
from train.run.predict import best_of, matched
from train.run.row_input import NAME as STANDARD_INPUT
from train.run.row_input import rows_of_standard_input

ALPHAS = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)  # of the linear map, chosen by validation
BASELINE_ROWS = 200_000  # rows that the linear map is solved on, at most
SHOWN_WINDOWS = 6  # in forecasts.png


class Forecasting:
    """Forecasting as a task for train.loop. An example is a window with all its columns."""

    name = "forecast"
    metric = "mse"
    rivals = (*TRAINED, *SOLVED)
    shown = ("mse", "mae")
    higher_is_better = False

    def __init__(self, config, series, folder):
        self.config, self.series, self.folder = settle(config), series, folder
        self.dataset, self.data_sha256 = series.name, series.sha256
        self.windows = Windows(
            series,
            config.split,
            config.window,
            config.horizon,
            config.separate,
            limit_train=config.limit_train,
            limit_test=config.limit_test,
            seed=config.seed,
        )
        self.lengths = {split: len(firsts) for split, firsts in self.windows.firsts.items()}
        self.train_size = self.lengths["train"]
        season = config.season or steps_in_a_day(series.times) or SEASON
        self.season = min(season, config.window)
        self.baselines = self.fit_baselines()

    @cached_property
    def model(self):
        if self.config.mixer in self.baselines:
            return self.baselines[self.config.mixer][0]
        return build_model(self.config, self.card())

    def order(self, epoch):
        return batches.epoch_order(self.train_size, self.config.seed, epoch)

    def train_batch(self, rows):
        return self.windows.batch("train", rows)

    def tokens(self, batch):
        """Patches, each channel's its own."""
        B, _, C = batch["windows"].shape
        patches = 1 + (self.config.window - self.config.patch) // self.config.stride
        return B * C * patches

    def evaluate(self, split, predict):
        """MSE and MAE over all known targets, standardised; for the test also in the data's units.

        The look at the test split also writes horizon.csv, columns.csv and two figures.
        """
        errors = self.errors(split, predict)
        mse, mae = errors.overall()
        metrics = {"loss": mse, "mse": mse, "mae": mae}
        if split == "test":
            units = errors.by_column(self.windows.deviation)
            metrics["mae_in_units"] = float(np.mean([row["mae_in_units"] for row in units]))
            metrics["rmse_in_units"] = float(np.mean([row["rmse_in_units"] for row in units]))
            columns = [{"column": c} | u for c, u in zip(self.series.columns, units, strict=True)]
            write_table(self.folder / "columns.csv", columns)
            self.write_steps(errors)
            self.draw_windows(predict)
        return metrics

    def errors(self, split, predict, step=1):
        """What `predict` gets wrong on the windows of a split, or on every `step`-th."""
        errors = Errors(self.config.horizon, len(self.series.columns))
        for rows in batches.batches(np.arange(0, self.lengths[split], step), 128):
            batch = self.windows.batch(split, rows)
            errors.add(predict(batch), batch["targets"])
        return errors

    def fit_baselines(self):
        """name -> (model, what it gets wrong on the test windows). None of them is trained."""
        window, horizon = self.config.window, self.config.horizon
        models = {
            "linear": self.fit_linear_map(),
            "seasonal": Repeat(window, horizon, self.season),
            "last_value": Repeat(window, horizon),
        }
        return {name: (m, self.errors("test", host_predict(m))) for name, m in models.items()}

    def fit_linear_map(self):
        """The linear map of the window, its shrinkage chosen on the validation windows."""
        config, channels = self.config, len(self.series.columns)
        model = LinearMap(config.window, config.horizon, config.normalise)
        step = -(-self.train_size * channels // BASELINE_ROWS)
        pieces = batches.batches(np.arange(0, self.train_size, step), 128)
        moments = model.moments(self.windows.batch("train", rows) for rows in pieces)
        found = []
        step = max(1, self.lengths["val"] * channels // 20_000)
        for alpha in ALPHAS:
            model.solution = model.solve(*moments, alpha)
            mse, _ = self.errors("val", host_predict(model), step).overall()
            found.append((mse, alpha, model.solution))
        model.solution = min(found, key=lambda one: one[0])[2]
        return model

    def write_steps(self, errors):
        """horizon.csv and horizon.png: errors by steps ahead, the baselines' beside the model's."""
        everything = {name: e for name, (_, e) in self.baselines.items()}
        if self.config.mixer not in everything:
            everything = {"this model": errors} | everything
        curves = {name: e.by_step() for name, e in everything.items()}
        write_table(self.folder / "horizon.csv", steps_table(curves))
        mse = {name: both[0] for name, both in curves.items()}
        figures.errors_by_step(self.folder / "horizon.png", mse)

    def draw_windows(self, predict):
        """forecasts.png: windows and columns spread over the test split."""
        count, columns = SHOWN_WINDOWS, self.series.columns
        rows = np.linspace(0, self.lengths["test"] - 1, count).astype(int)
        batch = self.windows.batch("test", rows)
        by_model = {"this model": predict(batch)}
        linear, _ = self.baselines["linear"]
        if self.config.mixer != "linear":
            by_model["linear"] = host_predict(linear)(batch)
        panels, units = [], []
        for i in range(count):
            c = i % len(columns)
            first = self.windows.firsts["test"][rows[i]]
            when = self.series.times[first] if self.series.times else f"row {first + 1}"
            past, truth, *ahead = (
                self.windows.mean[c] + self.windows.deviation[c] * values[i, :, c]
                for values in (batch["windows"], batch["targets"], *by_model.values())
            )
            panels.append((f"from {when}", past, truth, dict(zip(by_model, ahead, strict=True))))
            units.append(columns[c])
        past = 2 * self.config.horizon
        figures.forecasts(self.folder / "forecasts.png", panels, past, units)

    def facts(self):
        train_end, val_end, test_end = self.windows.ends
        gaps = int(np.isnan(self.series.values[:test_end]).sum())
        scores = {}
        for name, (_, errors) in self.baselines.items():
            scores[f"{name}_mse"], scores[f"{name}_mae"] = errors.overall()
        return {
            "columns_forecast": ", ".join(self.series.columns),
            "train_rows": train_end,
            "val_rows": val_end - train_end,
            "test_rows": test_end - val_end,
            **{f"{split}_windows": count for split, count in self.lengths.items()},
            "gaps": f"{gaps:,}, each filled with the last value before it, and never a target"
            if gaps
            else 0,
            "season_steps": self.season,
            **({"layer_pattern": self.config.pattern} if self.config.mixer in TRAINED else {}),
            **scores,
        }

    def card(self):
        return {
            "columns": self.series.columns,
            "time_column": self.series.time_column,
            "mean": self.windows.mean.tolist(),
            "deviation": self.windows.deviation.tolist(),
            "season": self.season,
        }

    def save(self, path):
        """The checkpoint's card holds all that prediction needs."""

    def with_mixer(self, mixer):
        """The same task, data and all, for another mixer."""
        other = copy.copy(self)
        other.config = settle(dataclasses.replace(self.config, mixer=mixer))
        other.folder = self.folder / mixer
        return other


def host_predict(model):
    """predict(batch) of a model without parameters to train, on the host."""
    params = model.init(None)
    return lambda batch: model.predict(params, batch)


def load(config, folder, resume):
    series = load_series(
        config.dataset if config.data is None else None,
        config.data,
        config.columns,
        config.time_column,
    )
    return Forecasting(config, series, folder.path)


def predict(folder, config):
    """Print as csv what follows the rows of standard input, by the run's best parameters."""
    arrays, card = best_of(folder, "forecast")
    rows = rows_of_standard_input()
    series = read_series(rows, STANDARD_INPUT, card["columns"], card["time_column"])
    if len(series.values) < config.window:
        raise UserError(
            f"{STANDARD_INPUT} has {len(series.values)} rows; the run in {folder} forecasts from "
            f"{config.window}"
        )
    mean, deviation = np.array(card["mean"]), np.array(card["deviation"])
    window = fill_gaps((series.values - mean) / deviation)[-config.window :]
    xp = backend.get(config.backend)
    model = build_model(config, card)
    params = matched(model, arrays, xp, folder)
    runner = Shards(model, threads=1)
    batch = backend.to_device({"windows": window[None].astype(np.float32)}, xp)
    ahead = backend.to_numpy(runner.predict(params, batch))[0] * deviation + mean
    steps = times_ahead(series.times, len(ahead))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([card["time_column"] if series.times else "step", *card["columns"]])
    for step, values in zip(steps, ahead, strict=True):
        writer.writerow([step, *(f"{value:.6g}" for value in values)])
    sys.stdout.write(text.getvalue())


def times_ahead(times, count):
    """The next `count` times after the last one, or 1, 2, ... where the times tell no step."""
    step = time_step(times[-100:] if times else None)
    if step is None:
        return range(1, count + 1)
    last = datetime.datetime.fromisoformat(times[-1])
    try:
        return [(last + step * (i + 1)).isoformat(" ") for i in range(count)]
    except OverflowError:  # past the year 9999
        return range(1, count + 1)


COMMAND = Command(
    task="forecast",
    description="Forecast a multivariate series from patches of its past. A gap (empty, null, NaN) "
    "is filled with the last value before it and never counts as a target.",
    config_class=ForecastConfig,
    load=load,
    predict=predict,
    predict_help="read the latest rows (csv with a header, or JSON lines), at least a window of "
    "them, from standard input, and print the forecast of the run in DIR as csv",
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
