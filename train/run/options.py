"""The settings of a run: one frozen dataclass gives the flags, --help, config.json and the header.

A field declared with `option` is a command-line flag; its metadata holds the help text, the choices
and the bounds. A task subclasses one of train.run.own_data, adds its own fields and may declare a
shared one again with other choices or another default.
"""

import argparse
import dataclasses
import math
import os
import sys
import tomllib
from operator import ge, gt, le, lt
from pathlib import Path

from minisum import backend, checkpoint, files
from minisum.backend import PRECISIONS
from minisum.errors import UserError, did_you_mean, require_known

# Bounds of an option, and what holds between a value and each.
BOUNDS = {"at_least": ge, "above": gt, "at_most": le, "below": lt}


def option(default, help, group="training", **metadata):
    """A dataclass field that is also a flag.

    metadata: choices, metavar, the bounds at_least, above, at_most and below, and `type`, which
    reads the flag's text where the field's own type does not.
    """
    return dataclasses.field(default=default, metadata={"help": help, "group": group, **metadata})


def changed(config_class, name, default, **metadata):
    """The option `name` of `config_class` with another default, and what else is different."""
    field = config_class.__dataclass_fields__[name]
    return dataclasses.field(default=default, metadata={**field.metadata, **metadata})


def recipes(task):
    """name -> the defaults that it changes, of all recipes of a task."""
    text = (Path(__file__).parents[1] / "recipes.toml").read_text(encoding="utf-8")
    return {"default": {}} | tomllib.loads(text)[task]


def file_path(text):
    """An absolute path: the run may be resumed from another folder. A link keeps its own name."""
    try:
        return os.path.abspath(Path(text).expanduser())
    except (OSError, RuntimeError) as error:  # an unknown ~user
        raise UserError(f"{text} is not a path to a file: {error}") from None


def names(text):
    """("a", "b", "c") of "a,b,c"."""
    return tuple(name.strip() for name in utf8(text).split(",") if name.strip())


def some_of(known, text, field):
    """The names in "a,b", each once. UserError for one that is not known, or if there is none."""
    found = list(dict.fromkeys(names(text)))
    for name in found:
        require_known(flag(field), name, known)
    if not found:
        raise UserError(f"{flag(field)} names nothing; known: {', '.join(known)}")
    return found


def utf8(argument):
    """The value of a flag as UTF-8, also where the locale decoded its bytes as something else."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        return argument


# Kinds of options, for `option(default, help, group, **N)`.
N = {"at_least": 1, "metavar": "N"}
SIZE = N | {"at_most": 2**16}
LENGTH = N | {"at_most": 2**24}
LAYERS = N | {"at_most": 2**10}
COUNT = {"at_least": 0, "metavar": "N"}
D_FF = COUNT | {"at_most": 2**18}
RATE = {"at_least": 0, "below": 1, "metavar": "RATE"}
POSITIVE = {"above": 0, "metavar": "X"}
NAME = {"metavar": "NAME"}
LIST = {"type": names, "metavar": "A,B,C"}
FILE = {"type": file_path, "metavar": "FILE"}
RECIPES = ("default", "published", "finetune")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a command."""

    # name of a recipe -> the defaults that it changes
    RECIPES = {"default": {}}
    precision = None  # of products: that of the process, for a command without the flag

    def check(self, given=()):
        """UserError for a value out of range, or for values that contradict each other.

        given: names of the fields that were asked for, as opposed to defaults.
        """
        for field in dataclasses.fields(self):
            check_bounds(field, getattr(self, field.name))

    def label(self):
        """What the default folder of a command is called by, after the command."""
        return []

    def check_heads(self):
        if self.width % self.heads:
            raise UserError(f"--heads {self.heads} does not divide --width {self.width}")

    def pick(self, *names):
        """These settings as a dict: arguments for what is called alike."""
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """The settings that every task has."""

    dataset: str = option("python_docs", "corpus by name", "data", **NAME)
    data: str = option(None, "your own file: csv, tsv, jsonl, txt or parquet", "data", **FILE)
    limit_train: int = option(None, "train on N rows only, drawn by class", "data", **N)
    limit_test: int = option(None, "test on N rows only, drawn by class", "data", **N)

    mixer: str = option("summation", "how tokens are mixed", "model", **NAME)
    width: int = option(256, "width of the model", "model", **SIZE)
    layers: int = option(1, "mixing layers", "model", **LAYERS)
    heads: int = option(4, "attention heads", "model", **LAYERS)
    dropout: float = option(0.5, "dropout rate", "model", **RATE)

    recipe: str = option("default", "set of defaults", choices=RECIPES[:2])
    epochs: int = option(20, "passes over the training rows", **N)
    batch_size: int = option(64, "examples per step", **N)
    lr: float = option(1e-3, "learning rate of Adam", **POSITIVE)
    schedule: str = option("constant", "learning rate over time", choices=("constant", "cosine"))
    warmup: int = option(0, "steps of linear warm-up", at_least=0, metavar="STEPS")
    weight_decay: float = option(0.0, "decoupled weight decay", at_least=0, metavar="RATE")
    epsilon: float = option(1e-8, "Adam's epsilon", **POSITIVE)
    raw_epsilon: bool = option(False, "add epsilon before bias correction, as Keras does")
    clip_value: float = option(None, "clip every gradient to [-X, X]", **POSITIVE)
    clip_norm: float = option(None, "clip the norm of the whole gradient", **POSITIVE)
    ema: float = option(
        0.0, "validate and keep an exponential moving average of the parameters, of this decay",
        **RATE,
    )  # fmt: skip
    select: str = option(
        "validation",
        "the epoch that is kept: the best on validation rows; the last; or the best on the test "
        "set, only to reproduce results published that way: its score is then no test score",
        choices=("validation", "last", "test"),
    )
    patience: int = option(None, "stop after N epochs without a new best; 0: never", **COUNT)
    plateau: int = option(None, "halve the rate after N epochs without a new best", **N)
    seed: int = option(0, "random seed", **COUNT)

    backend: str = option("numpy", "CPU or, with cupy, GPU", "running", choices=backend.NAMES)
    precision: str = option(
        "float32", "matrix products on a GPU: in float32, or with factors rounded to tf32 or bf16",
        "running", choices=PRECISIONS,
    )  # fmt: skip
    threads: int = option(None, "threads (default: one per core)", "running", **N, at_most=2**10)
    shard_rows: int = option(
        None, "examples per thread at a time (default: what its cache holds)", "running", **N
    )
    save_every: float = option(
        60.0, "seconds between checkpoints in an epoch", "running", at_least=0, metavar="SECONDS"
    )
    keep_state: bool = option(
        False,
        "keep the state of training when it is finished, to add epochs with --resume",
        "running",
    )
    log_every: int = option(
        None, "steps between losses in metrics.jsonl (default: an epoch)", "running", **N
    )
    eval_every: int = option(
        None, "steps between validations in metrics.jsonl; the best epoch is kept", "running", **N
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):  # config.json has lists
            if isinstance(value := getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(value))

    def source(self):
        """Where the data is: arguments of a loader."""
        dataset = self.dataset if self.data is None else None
        return {"dataset": dataset, "data_file": self.data}


class LayerPattern:
    """What --mixer, --layers and --layers-pattern say together, for a config that has all three."""

    BEFORE_ATTENTION = "summation"  # in the layers of --mixer hybrid

    def check_pattern(self, given):
        if self.layers_pattern is not None:
            refuse(("mixer", "layers"), given, "--layers-pattern names all layers")

    @property
    def pattern(self):
        """The layers, first to last."""
        if self.layers_pattern is not None:
            return self.layers_pattern
        if self.mixer != "hybrid":
            return f"{self.mixer}*{self.layers}"
        before = [f"{self.BEFORE_ATTENTION}*{self.layers - 1}"] if self.layers > 1 else []
        return ",".join([*before, "attention"])


def flag(name):
    return "--" + name.replace("_", "-")


def refuse(names, given, why):
    """UserError if a flag among `names` was given."""
    for name in names:
        if name in given:
            raise UserError(f"{flag(name)}: {why}")


def check_bounds(field, value):
    """UserError for a value outside its field's choices or bounds."""
    limits = field.metadata
    name = flag(field.name)
    if value is None:
        return
    if limits.get("choices"):
        require_known(name, value, limits["choices"])
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} {value}: a finite number is needed")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(f"{name}: a number below 2**63 is needed")
    broken = [
        f"{key.replace('_', ' ')} {limits[key]}"
        for key, holds in BOUNDS.items()
        if key in limits and not holds(value, limits[key])
    ]
    if broken:
        raise UserError(f"{name} {value}: it must be {' and '.join(broken)}")


def parser_for(config_class, program, description):
    """The argument parser of a task. Flags not given are absent from what it returns."""
    parser = Parser(
        prog=program,
        usage="%(prog)s [FLAG ...]",
        description=description,
        epilog=describe_recipes(config_class),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    groups = {}
    for field in dataclasses.fields(config_class):
        title = field.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        add_flag(groups[title], field)
    return parser


def about(docstring):
    """What --help says of a module: its docstring without the title, which -OO leaves out."""
    return (docstring or "").partition("\n\n")[2]


def add_flag(group, field):
    about = field.metadata
    if field.default is False:  # with a --no- form, to take a recipe's choice back
        switch = argparse.BooleanOptionalAction
        group.add_argument(flag(field.name), action=switch, help=about["help"])
        return
    kind, told = about.get("type", field.type), about["help"]
    choices, metavar = about.get("choices"), about.get("metavar")
    if choices and metavar is None and len(",".join(choices)) > 50:
        metavar, told = "NAME", f"{told}: {', '.join(choices)}"
    default = field.default
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    default = "" if default is None else f" (default: {shown})"
    limits = {"choices": choices, "metavar": metavar, "help": told.replace("%", "%%") + default}
    group.add_argument(flag(field.name), type=utf8 if kind is str else kind, **limits)


def describe_recipes(config_class):
    lines = []
    for recipe, values in config_class.RECIPES.items():
        flags = " ".join(flag(n) if v is True else f"{flag(n)} {v}" for n, v in values.items())
        if flags:
            lines.append(f"--recipe {recipe} means: {flags}. Flags given with it take precedence.")
    return " ".join(lines)


def add_out(parser, help):
    """Add --out; return its group of flags, those of the command rather than of the config."""
    group = parser.add_argument_group("command")
    group.add_argument("--out", metavar="DIR", help=help)
    return group


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Adds to each flag's help its default, if it has one."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong command line is a UserError like any other wrong input."""

    @classmethod
    def with_defaults(cls, program, description):
        """A parser whose --help shows each flag's default."""
        form = {"allow_abbrev": False, "formatter_class": Defaults}
        return cls(prog=program, description=description, **form)

    def error(self, message):
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_args(self, arguments=None, namespace=None):
        found, unknown = self.parse_known_args(arguments, namespace)
        if unknown:
            near = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
        return found

    def _check_value(self, action, value):
        if action.choices is not None:
            require_known("/".join(action.option_strings), value, action.choices)

    def given(self, arguments):
        """name -> value of the flags, without those that were not given."""
        given = vars(self.parse_args(arguments))
        if given.get("out") == "":
            raise UserError("--out is empty: name a folder")
        return given


def from_flags(config_class, given):
    """Build and check the config: class defaults, changed by the recipe, changed by `given`."""
    recipe = given.get("recipe", "finetune" if given.get("init_from") else "default")
    config = config_class(**{**config_class.RECIPES[recipe], **given, "recipe": recipe})
    if config.data is not None and "dataset" in given:
        raise UserError("--dataset and --data exclude each other: name one corpus")
    config.check(given)
    return config


# Settings that a resumed run may change: how long and on what it runs, not what it learns. What the
# data is, its SHA-256 decides, wherever it is.
FREE_ON_RESUME = {
    "epochs", "patience", "threads", "save_every", "log_every", "eval_every", "data", "test_data",
    "val_data", "separator", "encoding", "sample", "keep_state",
}  # fmt: skip


def from_run(config_class, task, folder, given):
    """The config of the run of `task` in `folder`, for resuming or predicting.

    given: flags given again; they must agree with the run's, except those in FREE_ON_RESUME.
    Returns (config, the whole of config.json).
    """
    path, stored = Path(folder) / "config.json", stored_config(folder)
    if stored.get("task") != task:
        raise UserError(f"{folder} is a run of another task: {stored.get('task')}")
    needed = {"data_sha256": str, "mixer": str, "seed": int, "threads": int, "ranks": int}
    if any(type(stored.get(name)) is not kind for name, kind in needed.items()):
        raise UserError(f"{path} is not the config.json of such a run")
    # An option that is newer than the run has its default, which is what there was before.
    values = {f.name: stored.get(f.name, f.default) for f in dataclasses.fields(config_class)}
    for field in dataclasses.fields(config_class):
        if not fits(field, values[field.name]):
            raise UserError(f"{path} is damaged: {field.name} in it is of the wrong type")
    for name, value in given.items():
        value = list(value) if isinstance(value, tuple) else value  # config.json has lists
        if name not in FREE_ON_RESUME and values[name] != value:
            raise UserError(
                f"{flag(name)} {value} contradicts the run in {folder}, which has {values[name]}: "
                "leave the flag out, or start a new run"
            )
    config = config_class(**{**values, **{k: given[k] for k in FREE_ON_RESUME & given.keys()}})
    config.check()
    return config, stored


def stored_config(folder):
    """The content of the config.json of a run. UserError if it cannot be relied on."""
    path = Path(folder) / "config.json"
    try:
        return files.read_json(path, lambda c: checkpoint.require_format(folder, c.get("format")))
    except FileNotFoundError:
        raise UserError(f"{folder} has no run in it: there is no config.json") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def fits(field, value):
    """Whether a value from JSON has the field's type, or is None where that is the default."""
    if value is None:
        return field.default is None
    if field.type is tuple:
        return isinstance(value, list) and all(isinstance(part, str) for part in value)
    if field.type is not float:
        return type(value) is field.type
    return isinstance(value, float) or (type(value) is int and abs(value) <= sys.float_info.max)
