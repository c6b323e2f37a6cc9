"""The published tables of P. Ekin's summation-based and attention-driven transformers, as runs.

A set is a line of a table with its numbers; a cell is one run of a command that makes such a number
again, from a seed, under a protocol (see train.reproduce.quirks).
"""

import dataclasses

from minisum.errors import UserError
from train.reproduce.quirks import TASKS, flags, split_names

ALL = "all"
SHORT = ("--epochs", "1")


@dataclasses.dataclass(frozen=True)
class Set:
    """A line of a published table. `numbers`: mixer -> metric -> published value.

    dataset: its name in the task's command, None if the command has none. `speed`: the published
    time of attention over that of the others.
    """

    name: str
    task: str
    dataset: str
    numbers: dict
    speed: str = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run: `python -m train.TASK ARGUMENTS`."""

    set: Set
    mixer: str
    protocol: str
    seed: int
    arguments: tuple

    @property
    def name(self):
        return f"{self.set.name}-{self.mixer}-{self.protocol}-seed{self.seed}"


def _classes(name, attention, summation, note=""):
    numbers = {"attention": {"accuracy": attention}, "summation": {"accuracy": summation}}
    return Set(name, "classifier", name, numbers, "6-18", note)


def _language(dataset, perplexities, accuracies, note=""):
    """Of attention, summation and hybrid."""
    both = zip(("attention", "summation", "hybrid"), perplexities, accuracies, strict=True)
    numbers = {mixer: {"batch_perplexity": p, "accuracy": a} for mixer, p, a in both}
    return Set(f"lm-{dataset}", "causal", dataset, numbers, None, note)


def _series(name, attention, hybrid, speed, dataset=True):
    """Test MSE of the PatchTST-style model, attention in every layer, and of ADT, the hybrid."""
    numbers = {"attention": {"mse": attention}, "hybrid": {"mse": hybrid}}
    return Set(name, "forecast", name if dataset else None, numbers, speed)


_LINES = (300, 331, 274), (0.22, 0.21, 0.23)
SETS = {
    entry.name: entry
    for entry in (
        _classes("ag_news", 0.91, 0.91),
        _classes("20newsgroups", 0.58, 0.65),
        _classes("imdb", 0.87, 0.88),
        _classes(
            "reuters", 0.77, 0.81,
            "the 8 largest topics here, 46 in the published run: not comparable",
        ),
        _language(
            "wikitext-2-raw", *_LINES, "test lines here, validation lines in the published run"
        ),
        _language(
            "wikitext-2", *_LINES,
            "tokenised text, test lines here; raw text, validation lines in the published run",
        ),
        _language("ag_news", (64, 79, 66), (0.34, 0.32, 0.34)),
        _language("imdb", (150, 198, 145), (0.22, 0.18, 0.22)),
        _language("cmu-book-summaries", (286, 335, 269), (0.18, 0.17, 0.19)),
        Set(
            "civil_comments", "multimodal", "civil_comments",
            {
                "attention": {"mae": 0.0314, "r2": 0.2599},
                "summation": {"mae": 0.0289, "r2": 0.3576},
            },
            "2-15", "rows drawn at random here, the first 10,000 in the published run",
        ),
        Set(
            "civil_comments_spans", "multimodal", "civil_comments_spans", {}, None,
            "posts of Civil Comments with labels of other raters: no published number",
        ),
        _series("ETTh1", 0.4450, 0.4387, "1.36"),
        _series("ETTh2", 0.2438, 0.1941, "1.37"),
        _series("ETTm1", 0.3704, 0.3295, "1.34"),
        _series("ETTm2", 0.1850, 0.1751, "1.44"),
        _series("Weather", 0.1607, 0.1548, "1.45", dataset=False),
        _series("Traffic", 0.3263, 0.3206, "1.38", dataset=False),
    )
}  # fmt: skip
GROUPS = {
    "classification": "classifier", "language": "causal", "multimodal": "multimodal",
    "forecast": "forecast",
}  # fmt: skip
OWN_TOKENS = "byte pairs of its own instead of GPT-2's: perplexities not comparable, bits are"


def sets_called(text):
    """The sets of "ag_news,language" or "all", in that order. UserError for an unknown name."""
    found = []
    for name in split_names(text):
        if name == ALL:
            found += SETS
        elif name in GROUPS:
            found += [entry.name for entry in SETS.values() if entry.task == GROUPS[name]]
        elif name in SETS:
            found.append(name)
        else:
            raise UserError(f"--sets: unknown {name!r}; known: all, {', '.join([*GROUPS, *SETS])}")
    if not found:
        raise UserError("--sets names no set")
    return [SETS[name] for name in dict.fromkeys(found)]


def cells(sets, protocols, seeds, mixers=None, quick=False, lm_tokenizer=None):
    """Every run that is asked for, the first seed of everything first.

    mixers: names to keep, None for all. UserError for one that no set has.
    """
    known = {mixer for entry in sets for mixer in TASKS[entry.task].mixers}
    for mixer in mixers or ():
        if mixer not in known:
            raise UserError(f"--mixers: {mixer!r} is not among {', '.join(sorted(known))}")
    found = []
    for seed in range(seeds):
        for entry in sets:
            task = TASKS[entry.task]
            for protocol in protocols:
                chosen = flags(entry.task, protocol)
                if entry.dataset is None or chosen is None:
                    continue
                if entry.task == "causal" and lm_tokenizer:
                    chosen += ("--tokenizer", lm_tokenizer)
                chosen += tuple(task.quick.split()) if quick else ()
                for mixer in task.mixers:
                    if mixers is None or mixer in mixers:
                        named = ("--dataset", entry.dataset, "--mixer", mixer, "--seed", str(seed))
                        short = SHORT if quick and mixer not in task.untrained else ()
                        found.append(Cell(entry, mixer, protocol, seed, named + chosen + short))
    return found
