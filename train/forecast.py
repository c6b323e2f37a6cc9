"""Forecast a multivariate series: python -m train.forecast

Without arguments it forecasts a generated series of known structure, with layers that see one
patch at a time and attention last. `--mixer all` compares that with attention in every layer,
summation, no mixing at all, two linear maps of the window, and two repetitions.
"""

import csv
import dataclasses
import datetime
import sys
from functools import cached_property

import numpy as np

from data.sets.forecast import (
    DEFAULT,
    NAMES,
    SPLITS,
    Windows,
    load_series,
    read_series,
    steps_in_a_day,
    time_step,
)
from minisum.errors import UserError
from minisum.mixers import parse_pattern
from minisum.models import forecaster
from minisum.models.series_baselines import LinearMap, Repeat
from minisum.runs.reading import build_model
from minisum.text import batches
from train.command_line import main
from train.run import figures
from train.run.answers import table_rows
from train.run.options import (
    LIST,
    NAME,
    RATE,
    Config,
    LayerPattern,
    N,
    changed,
    option,
    recipes,
    refuse,
)
from train.run.report import csv_of
from train.run.task import Task

SEASON = 24  # steps, where the times show no day
TRAINED = ("hybrid", "attention", "summation", "projection")
SOLVED = ("linear", "nlinear", "seasonal", "last_value")
ALPHAS = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)  # of the linear maps, chosen by validation
BASELINE_ROWS = 200_000  # rows that the linear map is solved on, at most
FILLED = ", each filled with the last value before it, and never a target"
PLOTTED_WINDOWS = 6  # in forecasts.png


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForecastConfig(LayerPattern, Config):
    dataset: str = changed(Config, "dataset", DEFAULT, help="series by name", choices=NAMES)
    limit_train: int = option(None, "train on N windows only, drawn at random", "data", **N)
    limit_test: int = option(None, "test on N windows only, evenly spaced", "data", **N)
    columns: tuple = option(None, "columns to forecast (default: all but the time)", "data", **LIST)
    time_column: str = option(
        None, "the column of times in --data (guessed if called date, time or timestamp)", "data",
        **NAME,
    )  # fmt: skip
    split: str = option(
        "standard",
        "training, validation and test in time: standard is 12, 4 and 4 months for the ETT series "
        "and 70, 10, 20% for others; published is 60, 20, 20%", "data", choices=SPLITS,
    )  # fmt: skip
    separate: bool = option(
        False, "no window reaches back before its split, as first published", "data"
    )
    window: int = option(512, "time steps of the input", "data", **N)
    horizon: int = option(96, "time steps that are forecast", "data", **N)
    season: int = option(
        None, f"time steps of the seasonal baseline (default: a day's, else {SEASON})", "data", **N
    )

    mixer: str = option(
        "hybrid",
        "how patches are mixed: hybrid is projection layers and attention last; or one mixer in "
        "all layers; or a baseline that is not trained; all compares them", "model",
        choices=(*TRAINED, *SOLVED, "all"),
    )  # fmt: skip
    layers_pattern: str = option(
        None, 'layers one by one instead, of any bidirectional mixer: "tssa*2,attention"', "model",
        metavar="PATTERN",
    )  # fmt: skip
    layers: int = changed(Config, "layers", 3, help="layers of --mixer")
    width: int = changed(Config, "width", 128)
    heads: int = changed(Config, "heads", 8)
    d_ff: int = option(256, "width inside the token networks", "model", **N)
    patch: int = option(16, "time steps of a patch", "model", **N)
    stride: int = option(8, "time steps from patch to patch", "model", **N)
    patches_from: str = option(
        "end", "the end of the window that the first patch is at: where patches do not fill it, "
        "the other end is cut off", "model", choices=("end", "start"),
    )  # fmt: skip
    positions: str = option(
        None, "how positions enter (default: add if all layers are attention, else multiply)",
        "model", choices=forecaster.POSITIONS,
    )  # fmt: skip
    position_bias: float = option(1.0, "added to positions that multiply", "model", metavar="X")
    normalise: str = option(
        "standard",
        "what is subtracted from each window and added to its forecast: nothing, its last value, "
        "or its mean, then also divided by its deviation", "model", choices=forecaster.NORMALISE,
    )  # fmt: skip
    dropout: float = changed(Config, "dropout", 0.15)
    attention_dropout: float = option(0.0, "dropout rate of attention's weights", "model", **RATE)
    attention_init: str = option(
        "glorot", "first weights of attention: glorot, or as PyTorch's MultiheadAttention draws "
        "them", "model", choices=("glorot", "pytorch"),
    )  # fmt: skip

    epochs: int = changed(Config, "epochs", 10, help="passes over the training windows")
    batch_size: int = changed(Config, "batch_size", 32, help="windows a step")
    lr: float = changed(Config, "lr", 1e-4)
    clip_norm: float = changed(Config, "clip_norm", 1.0)

    BEFORE_ATTENTION = "projection"
    WITH_DATA = ("time_column",)
    RECIPES = recipes("forecast")

    def check(self, given=()):
        super().check(given)
        self.check_pattern(given)
        if self.mixer in SOLVED:
            trained = ("epochs", "lr", "layers", "width", "heads", "dropout", "positions")
            refuse(trained, given, f"--mixer {self.mixer} is not trained")
            if self.mixer != "linear":
                what = "subtracts the last value" if self.mixer == "nlinear" else "repeats values"
                refuse(["normalise"], given, f"--mixer {self.mixer} {what} and nothing else")
        for mixer in TRAINED if self.mixer == "all" else {self.mixer} - set(SOLVED):
            build_model(**describe_model(dataclasses.replace(self, mixer=mixer)))  # if it fits
        if self.season is not None and self.season > self.window:
            raise UserError(f"--season {self.season} is longer than --window {self.window}")


class Forecasting(Task):
    """Forecasting as a task for train.loop. An example is a window with all its columns."""

    name = "forecast"
    config_class = ForecastConfig
    description = (
        "Forecast a multivariate series from patches of its past. A gap (empty, null, NaN) "
        "is filled with the last value before it and never counts as a target."
    )
    predict_help = (
        "read the latest rows (csv, tsv, jsonl, parquet), at least a window of them, from "
        "standard input or --data FILE, and print the forecast of the run in DIR as csv"
    )
    metric = "mse"
    compared, untrained = (*TRAINED, *SOLVED), SOLVED
    report_metrics = ("mse", "mae")
    higher_is_better = False

    @classmethod
    def load(cls, config, folder, resume):
        series = load_series(**config.source(), **config.pick("columns", "time_column"))
        return cls(config, series)

    def __init__(self, config, series):
        super().__init__(self.resolve(config), series)
        self.series = series
        limits = config.pick("limit_train", "limit_test", "seed")
        sizes = config.pick("split", "window", "horizon", "separate")
        self.windows = Windows(series, **sizes, **limits)
        self.lengths = {split: len(firsts) for split, firsts in self.windows.firsts.items()}
        self.train_size = self.lengths["train"]
        season = config.season or steps_in_a_day(series.times) or SEASON
        self.season = min(season, config.window)
        self.solved = self.solve()

    @cached_property
    def model(self):
        if self.config.mixer in SOLVED:
            return self.solved[self.config.mixer][0]
        return super().model

    @staticmethod
    def resolve(config):
        """One evaluation on the validation windows is all that a closed form needs of an epoch."""
        return dataclasses.replace(config, epochs=1) if config.mixer in SOLVED else config

    def batch(self, split, rows):
        return self.windows.batch(split, rows)

    def tokens(self, batch):
        """Patches, each channel's its own."""
        B, _, C = batch["windows"].shape
        patches = 1 + (self.config.window - self.config.patch) // self.config.stride
        return B * C * patches

    def evaluate(self, split, predict, folder=None):
        """MSE and MAE over all known targets, standardised; for the test also in the data's units.

        The test split is also described by horizon.csv, columns.csv and two figures in `folder`.
        """
        errors = self.errors(split, predict)
        mse, mae = map(float, mse_and_mae(errors))
        metrics = {"loss": mse, "mse": mse, "mae": mae}
        if split == "test":
            units = by_column(errors, self.windows.deviation)
            for name in ("mae_in_units", "rmse_in_units"):  # a column has its own unit
                values = units[name].tolist()
                metrics[name] = dict(zip(self.series.columns, values, strict=True))
            # Windows spread over the split are drawn.
            rows = np.linspace(0, self.lengths["test"] - 1, PLOTTED_WINDOWS).astype(int)
            batch = self.windows.batch("test", rows)
            forecasts = predict(batch)  # on every rank
            if folder:
                table = csv_of(rows_of({"column": self.series.columns} | units))
                (folder / "columns.csv").write_text(table, encoding="utf-8")
                self.write_steps(folder, errors)
                self.draw_windows(folder / "forecasts.png", rows, batch, forecasts)
        return metrics

    def errors(self, split, predict, step=1):
        """The error sums of `predict` on the windows of a split, or on every `step`-th."""
        errors = 0
        for rows in batches.batches(np.arange(0, self.lengths[split], step), 128):
            batch = self.windows.batch(split, rows)
            errors = errors + error_sums(predict(batch), batch["targets"])
        return errors

    def solve(self):
        """name -> (model, its errors on the test windows) of those that are not trained."""
        window, horizon = self.config.window, self.config.horizon
        models = {
            "linear": self.fit_linear_map(self.config.normalise),
            "nlinear": self.fit_linear_map("last"),
            "seasonal": Repeat(window, horizon, self.season),
            "last_value": Repeat(window, horizon),
        }
        return {name: (m, self.errors("test", host_predict(m))) for name, m in models.items()}

    def baselines(self):
        overall = {name: mse_and_mae(errors) for name, (_, errors) in self.solved.items()}
        return {
            name: {"mse": float(mse), "mae": float(mae)} for name, (mse, mae) in overall.items()
        }

    def fit_linear_map(self, normalise):
        """The linear map of the window, its shrinkage chosen on the validation windows."""
        config, channels = self.config, len(self.series.columns)
        model = LinearMap(config.window, config.horizon, normalise)
        step = -(-self.train_size * channels // BASELINE_ROWS)
        chunks = batches.batches(np.arange(0, self.train_size, step), 128)
        moments = model.moments(self.windows.batch("train", rows) for rows in chunks)
        step = max(1, self.lengths["val"] * channels // 20_000)

        def val_mse(solution):
            model.solution = solution
            return mse_and_mae(self.errors("val", host_predict(model), step))[0]

        model.solution = min((model.solve(*moments, alpha) for alpha in ALPHAS), key=val_mse)
        return model

    def write_steps(self, folder, errors):
        """horizon.csv and horizon.png: errors by steps ahead, the baselines' beside the model's."""
        everything = {name: e for name, (_, e) in self.solved.items()}
        if self.config.mixer not in everything:
            everything = {"this model": errors} | everything
        curves = {name: mse_and_mae(sums, axis=1) for name, sums in everything.items()}
        table = {"step": np.arange(self.config.horizon) + 1}
        for name, (mse, mae) in curves.items():
            named = name.replace(" ", "_")
            table |= {f"{named}_mse": mse, f"{named}_mae": mae}
        (folder / "horizon.csv").write_text(csv_of(rows_of(table)), encoding="utf-8")
        mse = {name: both[0] for name, both in curves.items()}
        figures.errors_by_step(folder / "horizon.png", mse)

    def draw_windows(self, path, rows, batch, forecasts):
        """forecasts.png: a column of each of these windows, with its forecasts."""
        columns, by_model = self.series.columns, {"this model": forecasts}
        linear, _ = self.solved["linear"]
        if self.config.mixer != "linear":
            by_model["linear"] = host_predict(linear)(batch)
        panels = []
        for i in range(len(rows)):
            c = i % len(columns)
            first = self.windows.firsts["test"][rows[i]]
            when = self.series.times[first] if self.series.times else f"row {first + 1}"
            past, truth, *ahead = (
                self.windows.mean[c] + self.windows.deviation[c] * values[i, :, c]
                for values in (batch["windows"], batch["targets"], *by_model.values())
            )
            named = dict(zip(by_model, ahead, strict=True))
            panels.append((f"from {when}", columns[c], past, truth, named))
        figures.forecasts(path, panels, 2 * self.config.horizon)

    def summary(self):
        train_end, val_end, test_end = self.windows.ends
        gaps = int(np.isnan(self.series.values[:test_end]).sum())
        scores = {
            f"{name}_{metric}": value
            for name, measured in self.baselines().items()
            for metric, value in measured.items()
        }
        return {
            "columns_forecast": ", ".join(self.series.columns),
            "train_rows": train_end,
            "val_rows": val_end - train_end,
            "test_rows": test_end - val_end,
            **{f"{split}_windows": count for split, count in self.lengths.items()},
            "gaps": f"{gaps:,}{FILLED}" if gaps else 0,
            "season_steps": self.season,
            **({"layer_pattern": self.config.pattern} if self.config.mixer in TRAINED else {}),
            **scores,
        }

    def model_spec(self):
        return {
            "model": describe_model(self.config, self.season),
            "columns": self.series.columns,
            "time_column": self.series.time_column,
            "mean": self.windows.mean.tolist(),
            "deviation": self.windows.deviation.tolist(),
        }

    @staticmethod
    def predict(run, chosen):
        """Print as csv what follows the rows of standard input."""
        (rows, where), time_column = table_rows(chosen), run.spec["time_column"]
        series = read_series(rows, where, run.columns, time_column)
        ahead = run.forecast(series.values)
        steps = times_ahead(series.times, len(ahead))
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([time_column if series.times else "step", *run.columns])
        for step, values in zip(steps, ahead, strict=True):
            writer.writerow([step, *(f"{value:.6g}" for value in values)])


def host_predict(model):
    """predict(batch) of a model without parameters to train, on the host."""
    params = model.init(None)
    return lambda batch: model.predict(params, batch)


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


def rows_of(columns):
    """A dict for each row of a table. columns: name -> values (N,)."""
    rows = zip(*(np.asarray(values).tolist() for values in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def describe_model(config, season=1):
    """What makes the model: arguments of minisum.runs.reading.build_model."""
    sizes = config.pick("window", "horizon")
    if config.mixer in ("linear", "nlinear"):
        normalise = config.normalise if config.mixer == "linear" else "last"
        return {"kind": "linear_map", "normalise": normalise, **sizes}
    if config.mixer in SOLVED:
        return {"kind": "repeat", "season": season if config.mixer == "seasonal" else 1, **sizes}
    layers = parse_pattern(config.pattern, causal=False)
    positions = config.positions or ("add" if set(layers) == {"attention"} else "multiply")
    sizes |= {"layers": layers, "positions": positions, "position_offset": config.position_bias}
    sizes |= config.pick("width", "heads", "d_ff", "patch", "stride", "patches_from", "normalise")
    sizes |= config.pick("dropout", "attention_dropout")
    return {"kind": "forecaster", "attention_draw": config.attention_init, **sizes}


def times_ahead(times, count):
    """The next `count` times after the last one, or 1, 2, ... if they have no regular step."""
    step = time_step(times[-100:] if times else None)
    if step is None:
        return range(1, count + 1)
    last = datetime.datetime.fromisoformat(times[-1])
    try:
        return [(last + step * (i + 1)).isoformat(" ") for i in range(count)]
    except OverflowError:  # past the year 9999
        return range(1, count + 1)


if __name__ == "__main__":
    sys.exit(main(Forecasting))
