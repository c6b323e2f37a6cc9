"""Compare mixers under one budget: python -m train.compare --task recall --mixers all

Every mixer is put in the same encoder (minisum.models.encoder) and trains for the same number of
steps on the same examples, from several seeds; `projection`, which mixes nothing, always takes part
and shows what the rest of the model can do alone. No step and no setting is selected, so there is
no validation split, and the test set is used once, after the last step.

Each cell (mixer, seed) is a file in --out: the same command again does only what is missing.
"""

import dataclasses
import sys

from data.sets import classification
from minisum import mixers
from minisum.errors import UserError
from train.command_line import resolve_defaults
from train.compare import report as compare_report
from train.compare import sequences
from train.compare.cell import scale_cell, train_cell
from train.compare.tasks import NAMES, SETTINGS, build
from train.run import sweeps
from train.run.cells import Cells, claim_settings
from train.run.options import (
    COUNT,
    D_FF,
    LENGTH,
    Config,
    N,
    Settings,
    changed,
    flag,
    names,
    option,
    some_of,
)

DEFAULT_MIXERS = "summation,attention,tssa,linear_attention,gated_deltanet"
NO_MIXING = "projection"
# What may differ between calls that add to one comparison.
OPEN = ("mixers", "seeds", "scaling", "without_projection", "quick")


def own(help, **limits):
    """A setting of some tasks: None until `resolve` fills in the task's own default."""
    return option(None, help, "task", **limits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig(Settings):
    task: str = option("recall", "the task", "task", choices=NAMES)
    dataset: str = own(
        "corpus of --task bytes (default: python_docs)", choices=classification.NAMES
    )
    length: int = own(
        "tokens of an example at most (ListOps: fewer); state tracking, copying: "
        "elements and letters in training", **N | {"at_least": 2, "at_most": 2**20},
    )  # fmt: skip
    test_length: int = own("state tracking and copying: the longest tested", **N)
    min_length: int = own("ListOps: more tokens than this; parity: the shortest word", **COUNT)
    ask: str = own(
        "state tracking: train on the state after every element, or the last only",
        choices=("every", "last"),
    )
    letters: int = own("selective copying: letters to be copied", **N)
    max_depth: int = own("ListOps: levels of a tree", **N, at_most=100)
    vocab_size: int = own(
        "recall: keys and values together; copying: letters and two more; texts: words kept",
        **N | {"at_least": 4},
    )
    pairs: int = own("recall: keys with values; regression: examples", **N)
    filler: str = own("recall: tokens between questions, random or 0", choices=("random", "blank"))
    dims: int = own("regression: dimension of x", **N)
    noise: float = own("regression: standard deviation of y", at_least=0, metavar="X")
    noise_kind: str = own(
        "regression: the same for all sequences, or up to --noise", choices=("fixed", "mixed")
    )
    train_size: int = own("training examples, where they are a fixed set", **N)
    test_size: int = own("test examples", **N)

    mixers: str = option(
        DEFAULT_MIXERS, "comma-separated, with options as in deltanet:beta_max=2; or all", "model",
        metavar="NAMES",
    )  # fmt: skip
    without_projection: bool = option(False, "leave out the model that does not mix", "model")
    width: int = changed(Config, "width", 64)
    layers: int = changed(Config, "layers", 2, help="blocks")
    heads: int = changed(Config, "heads", 4, help="heads")
    d_ff: int = option(
        None, "width of the token networks, 0 for none (default: 4 x width)", "model", **D_FF
    )
    positions: str = option(
        "add", "learned positions, or only the mixer's own", "model", choices=("add", "none")
    )
    dropout: float = changed(Config, "dropout", 0.0, help="dropout rate before the head")

    steps: int = option(1000, "training steps", **N)
    batch_size: int = changed(Config, "batch_size", 64)
    lr: float = changed(Config, "lr", 1e-3)
    schedule: str = changed(Config, "schedule", "cosine")
    warmup: int = changed(Config, "warmup", 50)
    weight_decay: float = changed(Config, "weight_decay", 0.0)
    clip_norm: float = changed(Config, "clip_norm", 1.0)
    seeds: int = option(3, "runs of every mixer, seeds 0, 1, ...", **N)
    quick: bool = option(False, "one seed and half the steps")

    backend: str = changed(Config, "backend", "numpy")
    threads: int = changed(Config, "threads", None)
    scaling: int = option(
        None, "also time one layer of each mixer for n = 64, 128, ... up to N", "running",
        **LENGTH | {"at_least": 64},
    )  # fmt: skip

    def label(self):
        return [self.task]

    def names(self):
        """The mixers to compare, in order. UserError for one that is unknown."""
        words = names(self.mixers)
        kinds = ",".join(word.partition(":")[0] for word in words)
        some_of([*mixers.TABLE, "all"], kinds, "mixers")
        able = [
            name for name, entry in mixers.TABLE.items()
            if entry.can_be_causal or self.task not in sequences.TASKS
        ]  # fmt: skip
        asked = [name for word in words for name in (able if word == "all" else [word])]
        if self.without_projection:
            asked = [name for name in asked if name != NO_MIXING]
        elif NO_MIXING not in asked:
            asked.append(NO_MIXING)
        if not asked:
            raise UserError(f"--mixers {self.mixers} --without-projection: no mixer is left")
        for name in asked:
            mixers.parse_name(name)
        return list(dict.fromkeys(asked))


def resolve(given):
    """The config with the task's defaults filled in; UserError for what it cannot use."""
    config = CompareConfig(**given)
    config.check()
    own = SETTINGS[config.task]
    optional = {field.name for field in dataclasses.fields(config) if field.default is None}
    foreign = {name for settings in SETTINGS.values() for name in settings} - own.keys()
    for name in sorted(foreign & optional & given.keys()):
        raise UserError(f"{flag(name)} has no meaning for --task {config.task}")
    config = dataclasses.replace(config, **own | given)
    if config.quick:
        quick = {"seeds": 1, "steps": max(1, config.steps // 2)}
        config = dataclasses.replace(config, **quick | given)
    config = resolve_defaults(config)
    config.check_heads()
    config.names()
    return config


def compare(config, folder, report):
    """Do the cells that are missing in a claimed RunFolder, then write the tables and pictures."""
    task = build(config)
    names = config.names()
    for mixer in names:
        task.model(mixer)  # an impossible one is refused before hours are spent on the others
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in OPEN}
    settings["data_sha256"] = task.sha256
    claim_settings(folder, settings)
    baselines = task.baselines()
    compare_report.header(report, config, task, settings, baselines)
    cells = Cells(folder, settings)
    for seed in range(config.seeds):
        for mixer in names:
            name = cell_name(mixer, seed)
            result = cells.done(name)
            if result is None:
                result = cells.keep(name, train_cell(task, mixer, seed, report))
                compare_report.cell_line(report, result, task.metric)
    results = [cells.done(cell_name(mixer, s)) for mixer in names for s in range(config.seeds)]
    scaling = []
    for mixer in names if config.scaling else ():
        name = f"scaling-{mixer}-{config.scaling}"
        row = cells.done(name)
        if row is None:
            row = cells.keep(name, scale_cell(task, mixer, config.scaling))
            compare_report.scaling_line(report, row)
        scaling.append(row)
    compare_report.finish(report, folder, task, settings, results, baselines, scaling)


def cell_name(mixer, seed):
    """A file's name: without the colon, which some systems keep for themselves."""
    return f"{mixer.replace(':', ' ')}-seed{seed}"


def main(arguments=None):
    return sweeps.main("compare", CompareConfig, __doc__, resolve, compare, arguments)


if __name__ == "__main__":
    sys.exit(main())
