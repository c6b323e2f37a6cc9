"""Linear regression in context by linear self-attention: python -m train.icl --quick

Trains stacks of linear self-attention, 1 to 7 layers without norm or feed-forward network, to
regress on noisy examples, and prints Table 1 of "Linear Transformers are Versatile In-Context
Learners" (Vladymyrov et al. 2024) again, beside the published numbers. Forms of a layer:

full: matrices P and Q. free: four scalars. head: four scalars of one head with diagonal P and Q,
the published Diag. gd: two scalars, the published GD++.

Noise laws: N for sigma ~ U(0, N), 1+3 for sigma from {1, 3}. A loss is half the squared error minus
that of the oracle, who knows sigma.

Each cell (form, law, layers) trains all its seeds at once and is a file in --out: the same command
again does only what is missing. The whole table takes some hours on a processor, minutes on a GPU.
"""

import dataclasses
import sys
import warnings

import minisum
from minisum import backend, machine
from minisum.errors import UserError
from minisum.models.in_context import FORMS
from train.command_line import run_with_exit_status
from train.icl import baselines, figures, report, sequences, training
from train.run.cells import Cells, claim_settings
from train.run.folder import RunFolder, new_path
from train.run.options import LIST, POSITIVE, Config, N, changed, check_bounds, option, parser_for
from train.run.report import Report

# What --quick changes: half an hour of the table in some minutes.
QUICK = {"noise": ("5", "1+3"), "layers": ("1", "2", "4"), "seeds": 3, "steps": 600}
QUICK |= {"test_size": 20_000}
# What may differ between calls that add to one table.
OPEN = ("forms", "noise", "layers", "quick", "backend")


@dataclasses.dataclass(frozen=True, kw_only=True)
class IclConfig:
    forms: tuple = option(None, "of a layer: full, free, head, gd (default: all)", "table", **LIST)
    noise: tuple = option(None, "0, ..., 7, 1+3, 1+3+5 (default: all)", "table", **LIST)
    layers: tuple = option(None, "depths, 1, ..., 7 (default: all)", "table", **LIST)
    quick: bool = option(
        False, "noise 5,1+3, layers 1,2,4, three seeds, 600 steps, 20,000 test sequences", "table"
    )
    seeds: int = option(5, "models of every cell, seeds 0, 1, ...", **N)
    steps: int = option(3000, "training steps", **N)
    batch_size: int = changed(Config, "batch_size", 256)
    lr: float = changed(Config, "lr", 0.1, help="learning rate of Adam; full: a tenth of it")
    warmup: int = changed(Config, "warmup", 100)
    clip_norm: float = option(1.0, "clip the norm of each model's gradient", **POSITIVE)
    test_size: int = option(100_000, "test sequences", **N)
    backend: str = changed(Config, "backend", "numpy")

    RECIPES = {}

    def depths(self):
        return [int(layers) for layers in self.layers]


def resolve(given):
    """The config of the flags given; UserError for what it cannot use."""
    config = IclConfig(**((QUICK if given.get("quick") else {}) | given))
    for field in dataclasses.fields(config):
        check_bounds(field, getattr(config, field.name))
    known = {"forms": tuple(FORMS), "noise": tuple(sequences.LAWS), "layers": tuple("1234567")}
    for name, values in known.items():
        asked = getattr(config, name)
        for value in asked or ():
            if value not in values:
                raise UserError(f"--{name}: unknown {value!r}; known: {', '.join(values)}")
        if asked == ():
            raise UserError(f"--{name} names nothing")
        if asked is not None:
            known[name] = tuple(value for value in values if value in asked)
    return dataclasses.replace(config, **known)


def reproduce(config, folder, progress, arguments):
    """Do the cells that are missing in a claimed RunFolder, then write the table and figures."""
    xp = backend.get(config.backend)
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in OPEN}
    claim_settings(folder, settings)
    progress.say(f"minisum {minisum.__version__}, in-context regression")
    progress.table(settings | {"device": machine.device_name(xp)})
    cells = Cells(folder, settings)
    known = {name: cells.done(f"baselines-{name}") for name in config.noise}
    missing = [name for name in config.noise if known[name] is None]
    for name, measured in baselines.measure(missing, config.test_size).items() if missing else ():
        known[name] = cells.keep(f"baselines-{name}", measured)
    for found in known.values():
        report.baselines_line(progress, found)
    # Arrays of one law fit a processor's cache; a GPU is kept busy by all of them.
    groups = [[name] for name in config.noise] if config.backend == "numpy" else [config.noise]
    results = {}
    for layers in config.depths():
        for names in groups:
            results |= do_cells(config, layers, names, cells, progress)
    report.finish(progress, folder, config, results, known, arguments)
    figures.draw(folder.path, config, results, known)
    progress.say(f"files in {folder}")


def do_cells(config, layers, names, cells, progress):
    """{(form, law, layers): result} of all forms for these laws, trained where missing."""

    def key(form, name):
        return f"{form}-{name}-{layers}-layers"

    wanted = [(form, name) for form in config.forms for name in names]
    missing = [cell for cell in wanted if cells.done(key(*cell)) is None]
    forms = [form for form in config.forms if form in {form for form, _ in missing}]
    laws = [name for name in names if name in {name for _, name in missing}]
    if missing:
        trained = training.train(config, layers, forms, laws, progress)
        for cell in missing:
            report.cell_line(progress, cells.keep(key(*cell), trained[cell]))
    return {(*cell, layers): cells.done(key(*cell)) for cell in wanted}


def main(arguments=None):
    """Run the command; return the exit status: 0, 2 for unusable input, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with run_with_exit_status() as outcome:
        outcome.join_group().from_rank_0(lambda: run(arguments))
    return outcome.status


def run(arguments):
    parser = parser_for(IclConfig, "python -m train.icl", __doc__.split("\n\n", 1)[1])
    parser.add_argument_group("command").add_argument(
        "--out", metavar="DIR", help="folder of the table (default: runs/icl-TIME)"
    )
    given = vars(parser.parse_args(arguments))
    out = given.pop("out", None)
    if out == "":
        raise UserError("--out is empty: name a folder")
    config = resolve(given)
    folder = RunFolder(out or new_path("runs", "icl"))
    progress = Report()
    machine.keep_freed_memory()
    with folder.claimed(), warnings.catch_warnings():
        # A model that diverges overflows; its loss shows it.
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            reproduce(config, folder, progress, arguments)
        except KeyboardInterrupt:
            progress.warn(f"finished cells are kept; the same command with --out {folder} goes on")
            raise


if __name__ == "__main__":
    sys.exit(main())
