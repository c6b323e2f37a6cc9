"""Forecast a multivariate series: python -m train.forecast

Without arguments it forecasts a generated series of known structure, with layers that see one
patch at a time and attention last. `--mixer all` compares that with attention in every layer,
summation, no mixing at all, two linear maps of the window, and two repetitions.
"""

import csv
import dataclasses
import sys
from functools import cached_property

import numpy as np

from data.reading.times import steps_in_a_day, times_ahead
from data.sets.forecast import DEFAULT, NAMES, SPLITS, Windows, load_series, read_series
from minisum.errors import UserError
from minisum.mixers import WithOptions, names, parse_pattern
from minisum.models import forecaster
from minisum.runs.reading import build_model
from train.command_line import main
from train.forecast_baselines import SOLVED, by_column, errors_of, mse_and_mae, solve
from train.forecast_files import draw_windows, drawn_windows, write_columns, write_steps
from train.run.answers import table_rows
from train.run.options import LIST, RATE, LayerPattern, N, changed, option, recipes, refuse
from train.run.own_data import OwnData, of_name
from train.run.task import Task

SEASON = 24  # steps, where the times show no day
TRAINED = ("hybrid", "attention", "summation", "projection")
FILLED = ", each filled with the last value before it, and never a target"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForecastConfig(LayerPattern, OwnData):
    dataset: str = of_name(OwnData, DEFAULT, NAMES, "series")
    limit_train: int = option(None, "train on N windows only, drawn at random", "data", **N)
    limit_test: int = option(None, "test on N windows only, evenly spaced", "data", **N)
    columns: tuple = option(None, "columns to forecast (default: all but the time)", "data", **LIST)
    time_column: str = option(
        None, "the column of times in --data (default: the one called date, time or timestamp, or "
        "the one that holds dates)", "data", metavar="NAME",
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
        "all layers, with its options behind the name (simpletron:scale=mean); or a baseline that "
        "is not trained; all compares the first eight", "model", choices=WithOptions(
            (*TRAINED, *SOLVED, "all", *sorted({*names(causal=False)} - {*TRAINED}))
        ),
    )  # fmt: skip
    layers_pattern: str = option(
        None, 'layers one by one instead, of any bidirectional mixer: "tssa*2,attention"', "model",
        metavar="PATTERN",
    )  # fmt: skip
    layers: int = changed(OwnData, "layers", 3, help="layers of --mixer")
    width: int = changed(OwnData, "width", 128)
    heads: int = changed(OwnData, "heads", 8)
    d_ff: int = option(256, "width inside the token networks", "model", **N)
    patch: int = option(16, "time steps of a patch", "model", **N)
    stride: int = option(8, "time steps from patch to patch", "model", **N)
    patches_from: str = option(
        "end", "the end of the window that the first patch is at: where patches do not fill it, "
        "the other end is cut off", "model", choices=("end", "start"),
    )  # fmt: skip
    positions: str = option(
        None, "use of positions (default: add if all layers are attention, else multiply)",
        "model", choices=forecaster.POSITIONS,
    )  # fmt: skip
    position_bias: float = option(1.0, "added to positions that multiply", "model", metavar="X")
    normalise: str = option(
        "standard",
        "what is subtracted from each window and added to its forecast: nothing, its last value, "
        "or its mean, then also divided by its deviation", "model", choices=forecaster.NORMALISE,
    )  # fmt: skip
    dropout: float = changed(OwnData, "dropout", 0.15)
    attention_dropout: float = option(0.0, "dropout rate of attention's weights", "model", **RATE)
    attention_init: str = option(
        "glorot", "initial weights of attention: glorot, or as PyTorch's MultiheadAttention draws "
        "them", "model", choices=("glorot", "pytorch"),
    )  # fmt: skip

    epochs: int = changed(OwnData, "epochs", 10, help="passes over the training windows")
    batch_size: int = changed(OwnData, "batch_size", 32, help="windows per step")
    lr: float = changed(OwnData, "lr", 1e-4)
    clip_norm: float = changed(OwnData, "clip_norm", 1.0)

    BEFORE_ATTENTION = "projection"
    WITH_COLUMNS = ("time_column",)
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
        self.solved = solve(self.windows, config.normalise, self.season)

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
        errors = errors_of(predict, self.windows, split)
        mse, mae = map(float, mse_and_mae(errors))
        metrics = {"loss": mse, "mse": mse, "mae": mae}
        if split == "test":
            units = by_column(errors, self.windows.deviation)
            for name in ("mae_in_units", "rmse_in_units"):  # a column has its own unit
                values = units[name].tolist()
                metrics[name] = dict(zip(self.series.columns, values, strict=True))
            drawn = drawn_windows(self.windows)
            forecasts = predict(drawn[1])  # on every rank
            if folder:
                linear = None if self.config.mixer == "linear" else self.solved["linear"][0]
                write_columns(folder, self.series.columns, units)
                write_steps(folder, errors, self.solved, self.config.mixer)
                draw_windows(folder, self.windows, drawn, forecasts, linear)
        return metrics

    def baselines(self):
        overall = {name: map(float, mse_and_mae(e)) for name, (_, e) in self.solved.items()}
        return {n: dict(zip(("mse", "mae"), both, strict=True)) for n, both in overall.items()}

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
            **({} if self.config.mixer in SOLVED else {"layer_pattern": self.config.pattern}),
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


if __name__ == "__main__":
    sys.exit(main(Forecasting))
