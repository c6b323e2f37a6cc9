"""Whether pretrained weights help another mixer: python -m train.transfer --init-from FOLDER

A pretrained encoder is fine-tuned with attention and with other mixers in its place, each from all
weights that it has a place for, from the word embeddings alone, and from nothing. What the words
alone give is no merit of the mixers' weights: the difference to them is what was transferred.

Every learning rate is tried with seed 0, and the one with the best validation accuracy is used with
the other seeds. Test rows are only measured. Each cell is a file in --out: the same command again
does only what is missing.
"""

import dataclasses
import sys

from data.sets import classification
from minisum import mixers
from minisum.errors import UserError
from train.command_line import resolve_defaults
from train.run import sweeps
from train.run.cells import Cells, claim_settings
from train.run.options import (
    LIST,
    Config,
    N,
    Settings,
    changed,
    names,
    option,
    some_of,
)
from train.run.own_data import InitConfig
from train.transfer import report as tables
from train.transfer.cell import train_cell, untrained_cell
from train.transfer.corpus import STARTS, Corpus

MIXERS = (
    "attention,linear_attention:feature_map=hedgehog,linear_attention,first_order,simpletron,"
    "simpletron:output=True,simpletron:output=True:scale=root_width,"
    "simpletron:output=True:scale=mean,simpletron:output=True:scale=learned,tssa,summation"
)
# What may differ between calls that add to one experiment.
OPEN = ("mixers", "starts", "seeds", "lr", "init_from", "backend", "threads")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferConfig(Settings):
    init_from: str = changed(InitConfig, "init_from", None)
    dataset: str = option("ag_news", "corpus by name", "data", choices=classification.NAMES)
    limit_train: int = changed(Config, "limit_train", 20_000)
    limit_test: int = changed(Config, "limit_test", 1000)
    validation: float = changed(InitConfig, "validation", 0.05)
    max_len: int = changed(InitConfig, "max_len", 128)

    mixers: str = option(MIXERS, "comma-separated, with options", "model", metavar="NAMES")
    starts: tuple = option(tuple(STARTS), "starting points", "model", **LIST)
    dropout: float = changed(Config, "dropout", 0.1)

    steps: int = option(240, "training steps", **N)
    match_steps: int = option(100, "steps of matching attention's outputs or weights", **N)
    batch_size: int = changed(Config, "batch_size", 32)
    lr: tuple = option(("1e-4", "5e-4"), "learning rates of Adam to choose from", **LIST)
    warmup: int = changed(Config, "warmup", 30)
    weight_decay: float = changed(Config, "weight_decay", 0.01)
    clip_norm: float = changed(Config, "clip_norm", 1.0)
    seeds: int = option(3, "seeds 0, 1, ...", **N)

    backend: str = changed(Config, "backend", "numpy")
    threads: int = changed(Config, "threads", None)

    def check(self, given=()):
        super().check(given)
        if self.init_from is None:
            raise UserError("--init-from FOLDER is missing: the encoder to transfer from")
        some_of(STARTS, ",".join(self.starts), "starts")
        for mixer in names(self.mixers):
            mixers.parse_name(mixer)
        self.rates()

    def label(self):
        return [self.dataset]

    def rates(self):
        try:
            return [float(rate) for rate in self.lr]
        except ValueError:
            raise UserError(f"--lr {','.join(self.lr)}: numbers are needed") from None


def transfer(config, folder, report):
    """Do the cells that are missing in a claimed RunFolder, then write the table and the figure."""
    corpus = Corpus(config)
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in OPEN}
    settings |= corpus.sha256
    claim_settings(folder, settings)
    cells, results, untrained = Cells(folder, settings), [], []

    def cell(name, make, *what):
        found = cells.done(name) or cells.keep(name, make(corpus, *what))
        report.say(tables.line(found))
        return found

    for mixer in names(config.mixers):
        for start in config.starts:
            if not corpus.can_begin(mixer, start):
                continue
            name = f"{mixer.replace(':', ' ')}-{start}"
            untrained.append(cell(f"{name}-untrained", untrained_cell, mixer, start, 0))

            def trained(rate, seed, name=name, mixer=mixer, start=start):
                return cell(f"{name}-{rate:g}-seed{seed}", train_cell, mixer, start, rate, seed)

            first = [trained(rate, 0) for rate in config.rates()]
            best = max(first, key=lambda found: found["val_accuracy"] or 0)
            results.append([best, *(trained(best["lr"], s) for s in range(1, config.seeds))])
    tables.finish(report, folder, config, settings, results, untrained)


def resolve(given):
    config = TransferConfig(**given)
    config.check()
    return resolve_defaults(config)


def main(arguments=None):
    return sweeps.main("transfer", TransferConfig, __doc__, resolve, transfer, arguments)


if __name__ == "__main__":
    sys.exit(main())
