"""The published tables as runs.

A set is a line of a table with its numbers (tables.toml); a cell is one run of a command that makes
such a number again, from a seed, under a protocol (see train.reproduce.quirks).
"""

import dataclasses
from itertools import product

from train import rivals
from train.reproduce.quirks import TASKS, flags, read
from train.run.options import some_of

SHORT = ("--epochs", "1")


@dataclasses.dataclass(frozen=True)
class Set:
    """A line of a published table; the fields are told in tables.toml."""

    task: str
    dataset: str
    numbers: dict = dataclasses.field(default_factory=dict)
    speed: str = None
    classes: int = None
    note: str = ""


SETS = read("tables.toml", Set)
GROUPS = {
    "all": [*SETS],
    "classification": [name for name, entry in SETS.items() if entry.task == "classifier"],
    "language": [name for name, entry in SETS.items() if entry.task == "causal"],
    "multimodal": [name for name, entry in SETS.items() if entry.task == "multimodal"],
    "forecast": [name for name, entry in SETS.items() if entry.task == "forecast"],
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run: `python -m train.TASK ARGUMENTS`."""

    set: str
    mixer: str
    protocol: str
    seed: int
    arguments: tuple

    @property
    def name(self):
        return f"{self.set}-{self.mixer}-{self.protocol}-seed{self.seed}"

    @property
    def task(self):
        return SETS[self.set].task


def sets_called(text):
    """Names of the sets of "ag_news,language" or "all". UserError for an unknown name."""
    asked = some_of([*GROUPS, *SETS], text, "sets")
    return list(dict.fromkeys(name for one in asked for name in GROUPS.get(one, [one])))


def cells(sets, protocols, seeds, mixers=None, quick=False, lm_tokenizer=None):
    """Every run that is asked for, the first seed of everything first.

    sets: names; mixers: "summation,attention", None for all that can be run here. UserError for one
    that no set has.
    """
    known = sorted({mixer for name in sets for mixer in TASKS[SETS[name].task].mixers})
    wanted = some_of(known, mixers, "mixers") if mixers else [*known]
    if not mixers and not rivals.available():
        wanted = [mixer for mixer in known if mixer not in rivals.ALL]
    found = []
    for seed in range(seeds):
        for name in sets:
            entry, task = SETS[name], TASKS[SETS[name].task]
            for protocol, mixer in product(protocols, task.mixers):
                chosen = flags(entry.task, protocol, mixer)
                if chosen is None or mixer not in wanted:
                    continue
                if entry.task == "causal" and lm_tokenizer:
                    chosen += ("--tokenizer", lm_tokenizer)
                if quick:
                    chosen += tuple(task.quick.split())
                    chosen += () if mixer in task.untrained else SHORT
                named = ("--dataset", entry.dataset, "--mixer", mixer, "--seed", str(seed))
                found.append(Cell(name, mixer, protocol, seed, named + chosen))
    return found
