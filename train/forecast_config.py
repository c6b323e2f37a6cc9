"""The settings of a forecaster, and the model that they stand for."""

import argparse
import dataclasses

from data.sets.forecast import DEFAULT, NAMES, SPLITS
from minisum.errors import UserError
from minisum.models import forecaster
from minisum.models.blocks import parse_pattern
from minisum.models.closed_form import LinearMap, Repeat
from train.multimodal_config import names
from train.run.options import Config, flag, option

SEASON = 24  # steps, where the times do not tell
TRAINED = ("hybrid", "attention", "summation", "projection")
SOLVED = ("linear", "seasonal", "last_value")
ABSENT = ("test_data", "validation", "tokenizer", "vocab_size", "max_len")


def absent(group="data"):
    """A flag of the other tasks that this one does not have."""
    return option(None, argparse.SUPPRESS, group, type=str)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForecastConfig(Config):
    dataset: str = option(DEFAULT, "series by name", "data", choices=NAMES)
    test_data: str = absent()
    validation: str = absent()
    tokenizer: str = absent()
    vocab_size: str = absent()
    max_len: str = absent("model")
    limit_train: int = option(
        None, "train on N windows only, drawn at random", "data", type=int, at_least=1, metavar="N"
    )
    limit_test: int = option(
        None, "test on N windows only, evenly spaced", "data", type=int, at_least=1, metavar="N"
    )
    columns: tuple = option(
        None, "columns to forecast (default: all but the time)", "data", type=names,
        metavar="A,B,C",
    )  # fmt: skip
    time_column: str = option(
        None, "the column of times in --data (guessed if called date, time or timestamp)", "data",
        type=str, metavar="NAME",
    )  # fmt: skip
    split: str = option(
        "standard",
        "training, validation and test in time: standard is 12, 4 and 4 months for the ETT series "
        "and 70, 10, 20% for others; published is 60, 20, 20%", "data", choices=SPLITS,
    )  # fmt: skip
    separate: bool = option(
        False, "no window looks back over the border of its split, as first published", "data"
    )
    window: int = option(512, "time steps that are seen", "data", at_least=1, metavar="N")
    horizon: int = option(96, "time steps that are forecast", "data", at_least=1, metavar="N")
    season: int = option(
        None, f"time steps of the seasonal baseline (default: a day's, else {SEASON})", "data",
        type=int, at_least=1, metavar="N",
    )  # fmt: skip

    mixer: str = option(
        "hybrid",
        "how patches are mixed: hybrid is projection layers and attention last; or one mixer in "
        "all layers; or a baseline that is not trained; all compares them", "model",
        choices=(*TRAINED, *SOLVED, "all"),
    )  # fmt: skip
    layers_pattern: str = option(
        None, 'layers one by one instead, of any bidirectional mixer: "tssa*2,attention"', "model",
        type=str, metavar="PATTERN",
    )  # fmt: skip
    layers: int = option(3, "layers of --mixer", "model", at_least=1, at_most=2**10, metavar="N")
    width: int = option(128, "width of the model", "model", at_least=1, at_most=2**16, metavar="N")
    heads: int = option(8, "attention heads", "model", at_least=1, at_most=2**10, metavar="N")
    d_ff: int = option(256, "width inside the token networks", "model", at_least=1, metavar="N")
    patch: int = option(16, "time steps of a patch", "model", at_least=1, metavar="N")
    stride: int = option(8, "time steps from patch to patch", "model", at_least=1, metavar="N")
    positions: str = option(
        None, "how positions enter (default: add if all layers are attention, else multiply)",
        "model", type=str, choices=forecaster.POSITIONS,
    )  # fmt: skip
    position_bias: float = option(1.0, "added to positions that multiply", "model", metavar="X")
    normalise: str = option(
        "standard",
        "what each window is freed of, and its forecast gets back: nothing, its last value, or its "
        "mean and deviation", "model", choices=forecaster.NORMALISE,
    )  # fmt: skip
    dropout: float = option(0.15, "dropout rate", "model", at_least=0, below=1, metavar="RATE")

    recipe: str = option("default", "set of defaults", choices=("default", "published"))
    epochs: int = option(10, "passes over the training windows", at_least=1, metavar="N")
    batch_size: int = option(32, "windows a step", at_least=1, metavar="N")
    lr: float = option(1e-4, "learning rate of Adam", above=0, metavar="RATE")
    clip_norm: float = option(
        1.0, "clip the norm of the whole gradient", type=float, above=0, metavar="X"
    )

    WITH_DATA = ("time_column",)
    RECIPES = {
        "default": {},
        "published": {
            "split": "published", "separate": True, "window": 512, "horizon": 96, "layers": 3,
            "width": 128, "heads": 8, "d_ff": 256, "patch": 16, "stride": 8, "position_bias": 0.0,
            "normalise": "none", "dropout": 0.15, "epochs": 10, "batch_size": 32, "lr": 1e-4,
            "clip_norm": 1.0, "select": "last",
        },
    }  # fmt: skip

    def __post_init__(self):
        if isinstance(self.columns, list):  # as config.json has it
            object.__setattr__(self, "columns", tuple(self.columns))

    def check(self, given=()):
        super().check(given)
        for name in ABSENT:
            if getattr(self, name) is not None:
                raise UserError(f"{flag(name)} has no meaning for a series")
        if self.layers_pattern is not None:
            for name in ("mixer", "layers"):
                if name in given:
                    raise UserError(f"--layers-pattern says it all: leave out --{name}")
        if self.mixer in SOLVED:
            for name in ("epochs", "lr", "layers", "width", "heads", "dropout", "positions"):
                if name in given:
                    raise UserError(f"{flag(name)}: --mixer {self.mixer} is not trained")
            if "normalise" in given and self.mixer != "linear":
                raise UserError(f"--normalise: --mixer {self.mixer} repeats what it sees")
        for mixer in TRAINED if self.mixer == "all" else {self.mixer} - set(SOLVED):
            build_model(dataclasses.replace(self, mixer=mixer), {})  # refuses what does not fit
        if self.season is not None and self.season > self.window:
            raise UserError(f"--season {self.season} is longer than --window {self.window}")

    @property
    def pattern(self):
        """The layers, first to last."""
        if self.layers_pattern is not None:
            return self.layers_pattern
        if self.mixer == "hybrid":
            return f"projection*{self.layers - 1},attention" if self.layers > 1 else "attention"
        return f"{self.mixer}*{self.layers}"


def build_model(config, card):
    if config.mixer == "linear":
        return LinearMap(config.window, config.horizon, config.normalise)
    if config.mixer in SOLVED:
        season = card["season"] if config.mixer == "seasonal" else 1
        return Repeat(config.window, config.horizon, season)
    layers = parse_pattern(config.pattern, causal=False)
    positions = config.positions or ("add" if set(layers) == {"attention"} else "multiply")
    return forecaster.Forecaster(
        config.window,
        config.horizon,
        layers,
        width=config.width,
        heads=config.heads,
        d_ff=config.d_ff,
        patch=config.patch,
        stride=config.stride,
        positions=positions,
        position_offset=config.position_bias,
        dropout=config.dropout,
        normalise=config.normalise,
    )


def settle(config):
    """One look at the validation windows is all that a closed form needs of an epoch."""
    return dataclasses.replace(config, epochs=1) if config.mixer in SOLVED else config
