"""Compare recall with the size of the state: python -m train.compare.recall

Multi-query associative recall as in figure 2 of "Zoology" (Arora et al. 2024): keys and values from
8,192 tokens, two layers without token networks, one head, widths from 64 on, and learned positions
for attention alone. Each mixer, length and width trains once for each learning rate and seed; the
rate with the best validation score is kept, and its score on the test set reported. Published with
a fixed set of 100,000 texts, dropout and a stop at .99; here no text comes twice.

Each cell is a file in --out: the same command again does only what is missing.
"""

import dataclasses
import sys
from itertools import product

import numpy as np

from minisum import files
from train.compare.__main__ import CompareConfig, cell_name, resolve
from train.compare.cell import train_cell
from train.compare.tasks import build
from train.run import sweeps
from train.run.cells import Cells, claim_settings
from train.run.figures import finish, picture
from train.run.options import N, Settings, changed, names, option
from train.run.report import csv_of
from train.run.tables import aligned

# What may differ between calls that add to one figure.
OPEN = ("lengths", "mixers", "widths", "rates", "seeds", "quick")
# What --quick changes: minutes on a CPU.
QUICK = {
    "lengths": (32,), "tokens_per_pair": 8, "vocab_size": 64, "test_size": 500,
    "mixers": "attention,summation,linear_attention,deltanet", "widths": (16, 32),
    "rates": (5e-3, 1e-2), "steps": 500, "batch_size": 64,
}  # fmt: skip


def numbers(text):
    """(64, 0.01) of "64,0.01"."""
    return tuple(float(word) if "." in word or "e" in word else int(word) for word in names(text))


LIST = {"type": numbers, "metavar": "A,B,C"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallConfig(Settings):
    lengths: tuple = option((64, 128, 256), "tokens of a text", "task", **LIST)
    tokens_per_pair: int = option(16, "a text of n tokens has n / N pairs", "task", **N)
    vocab_size: int = changed(CompareConfig, "vocab_size", 8192)
    test_size: int = changed(CompareConfig, "test_size", 3000)

    mixers: str = changed(CompareConfig, "mixers", "all")
    widths: tuple = option((64, 128, 256, 512), "widths of the model", "model", **LIST)

    rates: tuple = option((1e-4, 4.6e-4, 2.2e-3, 1e-2), "learning rates to choose from", **LIST)
    steps: int = option(12_500, "training steps", **N)
    batch_size: int = changed(CompareConfig, "batch_size", 512)
    weight_decay: float = changed(CompareConfig, "weight_decay", 0.1)
    seeds: int = option(1, "runs of every cell, seeds 0, 1, ...", **N)
    quick: bool = option(False, "few mixers, small: 32 tokens and widths of 16 and 32")

    backend: str = changed(CompareConfig, "backend", "numpy")
    threads: int = changed(CompareConfig, "threads", None)

    def names(self):
        return CompareConfig(mixers=self.mixers, without_projection=True).names()

    def compare_config(self, mixer, length, width, rate):
        """That of `train.compare` for one cell."""
        own = self.pick("vocab_size", "test_size", "steps", "batch_size", "weight_decay", "backend")
        own |= {"threads": self.threads, "task": "recall", "mixers": mixer, "filler": "blank"}
        own |= {"heads": 1, "d_ff": 0, "warmup": 0, "length": length}
        own |= {"pairs": length // self.tokens_per_pair}
        positions = "add" if mixer.partition(":")[0] in ("attention", "window") else "none"
        return resolve(own | {"width": width, "lr": rate, "positions": positions})


def sweep(config, folder, report):
    """Do the cells that are missing in a claimed RunFolder, then write table and picture."""
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in OPEN}
    claim_settings(folder, settings)
    cells, rows = Cells(folder, settings), []
    for length, width, mixer in product(config.lengths, config.widths, config.names()):
        runs = {}
        for rate, seed in product(config.rates, range(config.seeds)):
            name = f"{cell_name(mixer, seed)}-length{length}-width{width}-rate{rate}"
            run = cells.done(name)
            if run is None:
                task = build(config.compare_config(mixer, length, width, rate))
                run = cells.keep(name, train_cell(task, mixer, seed, report))
                report.say(f"{name}: {run['accuracy']}")
            runs.setdefault(rate, []).append(run)
        rows.append(best_rate(runs) | {"length": length, "width": width, "mixer": mixer})
    known = [
        {"mixer": f"({name})", "length": length, "accuracy": value}
        for length in config.lengths
        for name, value in baselines(config, length).items()
    ]
    columns = ("mixer", "length", "width", "rate", "validation", "accuracy", "state_numbers")
    lines = [[str(row.get(k, "")) for k in columns] for row in rows + known]
    report.say("\n".join(aligned([columns, *lines])))
    written = {"settings": settings, "rows": rows, "baselines": known}
    files.write_json(folder.path / "recall.json", written)
    files.write_text(folder.path / "recall.csv", csv_of(rows + known))
    draw(folder.path / "recall.png", rows, config)


def baselines(config, length):
    """name -> accuracy without learning"""
    some = config.names()[0], length, config.widths[0], config.rates[0]
    return build(config.compare_config(*some)).baselines()


def best_rate(runs):
    """Of rate -> runs: the rate with the best mean on validation texts, and what it scores."""

    def mean(rate, key):
        return float(np.mean([run[key] or 0.0 for run in runs[rate]]))

    best = max(runs, key=lambda rate: mean(rate, "validation"))
    scores = {key: round(mean(best, key), 4) for key in ("validation", "accuracy")}
    return scores | {"rate": best, "state_numbers": runs[best][0]["state_numbers"]}


@picture(13, 4.5)
def draw(figure, rows, config):
    """A panel a length: accuracy against the numbers of the state, a line a mixer over widths."""
    share = {"sharex": True, "sharey": True, "squeeze": False}
    panels = figure.subplots(1, len(config.lengths), **share)[0]
    for axes, length in zip(panels, config.lengths, strict=True):
        pairs = length // config.tokens_per_pair
        for mixer in config.names():
            line = [row for row in rows if (row["length"], row["mixer"]) == (length, mixer)]
            sizes, scores = ([row[key] for row in line] for key in ("state_numbers", "accuracy"))
            axes.semilogx(sizes, scores, marker="o", label=mixer, base=2)
        axes.axhline(1 / pairs, color="grey", linewidth=0.8, linestyle=":", label="1 / pairs")
        axes.set_title(f"{length} tokens, {pairs} pairs")
        axes.set_ylim(-0.02, 1.02)
        finish(axes, "numbers in the state", "accuracy", legend=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)


def from_given(given):
    config = RecallConfig(**(QUICK if given.get("quick") else {}) | given)
    config.check()
    return config


def main(arguments=None):
    return sweeps.main("compare.recall", RecallConfig, __doc__, from_given, sweep, arguments)


if __name__ == "__main__":
    sys.exit(main())
