"""In-context linear regression by linear self-attention: python -m train.icl --quick

Trains stacks of linear self-attention, 1 to 7 layers without norm or feed-forward network, to
regress on noisy examples, and prints Table 1 of "Linear Transformers are Versatile In-Context
Learners" (Vladymyrov et al. 2024) again, with the published numbers. Forms of a layer:

full: matrices P and Q. free: four scalars. head: four scalars of one head with diagonal P and Q,
the published Diag. gd: two scalars, the published GD++.

Noise laws: N for sigma ~ U(0, N), 1+3 for sigma from {1, 3}. A loss is half the squared error minus
that of the oracle, who knows sigma.

Each cell (form, law, layers) trains all its seeds at once and is a file in --out: the same command
again does only what is missing. The whole table takes some hours on a CPU, minutes on a GPU.
"""

import dataclasses
import sys

import minisum
from minisum import backend, machine
from minisum.models.in_context import FORMS
from train.icl import baselines, figures, report, sequences, training
from train.run import sweeps
from train.run.cells import Cells, claim_settings
from train.run.options import Config, N, Settings, changed, option, some_of

# What --quick changes: a part of the table in minutes.
QUICK = {"noise": "5,1+3", "layers": "1,2,4", "seeds": 3, "steps": 600, "test_size": 20_000}
KNOWN = {"forms": list(FORMS), "noise": list(sequences.LAWS), "layers": list("1234567")}
# What may differ between calls that add to one table.
OPEN = ("forms", "noise", "layers", "quick", "backend")


@dataclasses.dataclass(frozen=True, kw_only=True)
class IclConfig(Settings):
    forms: str = option("full,free,head,gd", "forms of a layer", "table", metavar="A,B,C")
    noise: str = option("0,1,2,3,4,5,6,7,1+3,1+3+5", "laws of the noise", "table", metavar="A,B,C")
    layers: str = option("1,2,3,4,5,6,7", "depths", "table", metavar="A,B,C")
    quick: bool = option(
        False, "noise 5,1+3, layers 1,2,4, three seeds, 600 steps, 20,000 test sequences", "table"
    )
    seeds: int = option(5, "models of every cell, seeds 0, 1, ...", **N)
    steps: int = option(3000, "training steps", **N)
    batch_size: int = changed(Config, "batch_size", 256)
    lr: float = changed(Config, "lr", 0.1, help="learning rate of Adam; full: a tenth of it")
    warmup: int = changed(Config, "warmup", 100)
    clip_norm: float = changed(
        Config, "clip_norm", 1.0, help="clip the norm of each model's gradient"
    )
    test_size: int = option(100_000, "test sequences", **N)
    backend: str = changed(Config, "backend", "numpy")

    def chosen(self, field):
        """The names in --forms, --noise or --layers, in the order of the table."""
        asked = some_of(KNOWN[field], getattr(self, field), field)
        return [name for name in KNOWN[field] if name in asked]

    def depths(self):
        return [int(layers) for layers in self.chosen("layers")]


def resolve(given):
    """The config of the flags given; UserError for what it cannot use."""
    config = IclConfig(**(QUICK if given.get("quick") else {}) | given)
    config.check()
    for field in KNOWN:
        config.chosen(field)
    return config


def reproduce(config, folder, progress, arguments):
    """Do the cells that are missing in a claimed RunFolder, then write the table and figures."""
    xp = backend.get(config.backend)
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in OPEN}
    claim_settings(folder, settings)
    progress.say(f"minisum {minisum.__version__}, in-context regression")
    progress.table(settings | {"device": machine.device_name(xp)})
    cells = Cells(folder, settings)
    known = {name: cells.done(f"baselines-{name}") for name in config.chosen("noise")}
    missing = [name for name in known if known[name] is None]
    for name, measured in baselines.measure(missing, config.test_size).items() if missing else ():
        known[name] = cells.keep(f"baselines-{name}", measured)
    for found in known.values():
        report.baselines_line(progress, found)
    # Arrays of one law fit a processor's cache; a GPU is kept busy by all of them.
    groups = [[name] for name in known] if config.backend == "numpy" else [list(known)]
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

    wanted = [(form, name) for form in config.chosen("forms") for name in names]
    missing = [cell for cell in wanted if cells.done(key(*cell)) is None]
    if missing:
        forms, laws = (list(dict.fromkeys(part)) for part in zip(*missing, strict=True))
        trained = training.train(config, layers, forms, laws, progress)
        for cell in missing:
            report.cell_line(progress, cells.keep(key(*cell), trained[cell]))
    return {(*cell, layers): cells.done(key(*cell)) for cell in wanted}


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments

    def work(config, folder, progress):
        reproduce(config, folder, progress, arguments)

    return sweeps.main("icl", IclConfig, __doc__, resolve, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
