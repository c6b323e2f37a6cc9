"""The named sets of all tasks in one table, and where their rows are found.

A published set is read from $MINISUM_DATA/NAME if that folder exists, with one file a split
(train.jsonl.gz, test.parquet, ...) in the hub's own columns, else from the hub.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from minisum.errors import UserError, require_known


@dataclass(frozen=True)
class NamedSet:
    """A set under the name that it has here and in MINISUM_DATA.

    cleaning: the function of data.sets.cleaning that makes the texts to learn from of those of the
    rows. class_names: for copies whose labels are bare numbers. running_text: a row is a line of a
    text that goes on.
    """

    name: str
    tasks: str  # apart by blanks
    hub: str | None = None  # address on the hub; None for generated sets and those it lacks
    config: str | None = None
    revision: str | None = None
    splits: tuple[str, ...] = ("train", "test")
    text: str | None = "text"  # column names; None for those of a file, to be guessed
    label: str | None = "label"
    numbers: tuple[str, ...] = ()
    target: str | None = None
    time: str | None = None
    class_names: tuple[str, ...] = ()
    running_text: bool = False
    cleaning: str | None = None

    def clean(self, texts: list[str]) -> list[str]:
        if self.cleaning is None:
            return texts
        return getattr(import_module("data.sets.cleaning"), self.cleaning)(texts)


# The branch with the hub's own parquet copy, where the main branch needs a loading script.
PARQUET = {"revision": "refs/convert/parquet"}
RUNNING = {"splits": ("train", "validation", "test"), "running_text": True}
WIKITEXT = {"hub": "Salesforce/wikitext", "cleaning": "wikitext_articles", **RUNNING}
# The columns of the paper.
CIVIL = {
    "numbers": ("toxicity", "severe_toxicity", "obscene", "threat"), "target": "identity_attack",
}  # fmt: skip
ETT = {"splits": ("train",), "time": "date"}

TABLE = (
    # Generated: the default of each task.
    NamedSet("python_docs", "classification language", splits=()),
    NamedSet("python_functions", "multimodal", splits=()),
    NamedSet("generated", "forecast", splits=()),
    NamedSet(
        "ag_news", "classification language", "fancyzhx/ag_news",
        class_names=("World", "Sports", "Business", "Sci/Tech"),
    ),
    NamedSet(
        "imdb", "classification language", "stanfordnlp/imdb", class_names=("negative", "positive"),
    ),
    NamedSet("20newsgroups", "classification", "SetFit/20_newsgroups", cleaning="strip_newsgroups"),
    # On the hub R8: the eight largest topics of the ModApte split, articles with a single topic.
    # A copy with other topics, such as the 46 of Keras, keeps those that its files name.
    NamedSet(
        "reuters", "classification", "yangwang825/reuters-21578", **PARQUET,
        class_names=("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade"),
    ),
    NamedSet("wikitext-2", "language", config="wikitext-2-v1", **WIKITEXT),
    NamedSet("wikitext-2-raw", "language", config="wikitext-2-raw-v1", **WIKITEXT),
    NamedSet(
        "cmu-book-summaries", "language", "textminr/cmu-book-summaries", splits=("train",),
        text="summary",
    ),
    NamedSet("tiny_shakespeare", "language", "karpathy/tiny_shakespeare", **RUNNING, **PARQUET),
    NamedSet("civil_comments", "multimodal", "google/civil_comments", **CIVIL),
    # The posts of the Toxic Spans data with the fractions of its raters.
    NamedSet("civil_comments_spans", "multimodal", **CIVIL),
    # The bare csv files; the copy under the authors' name needs a loading script.
    NamedSet("ETTh1", "forecast", "pkr7098/etth1", **ETT),
    NamedSet("ETTh2", "forecast", "pkr7098/etth2", **ETT),
    NamedSet("ETTm1", "forecast", "pkr7098/ettm1", **ETT),
    NamedSet("ETTm2", "forecast", "pkr7098/ettm2", **ETT),
    NamedSet("Weather", "forecast", **ETT),
    NamedSet("Traffic", "forecast", **ETT),
)  # fmt: skip
SETS = {entry.name: entry for entry in TABLE}


def names(task) -> tuple[str, ...]:
    """Names of the sets for `task`, the default first."""
    return tuple(name for name, entry in SETS.items() if task in entry.tasks.split())


def find(task, name) -> NamedSet:
    """The set called `name`, or any at an address. UserError if `task` has none of that name."""
    if "/" in name:
        return NamedSet(name, task, text=None, label=None)
    require_known("no data set", name, names(task))
    return SETS[name]


def open_set(
    task, dataset, data_file, test_file, generator, val_file=None, **form
) -> tuple[NamedSet, dict]:
    """The set, and for each of its splits the rows and what errors are to call them.

    It is the one in the files, else the one called `dataset`, else the default of `task`, whose
    rows come from `generator`, a "module.function" of data.generated. form: how files are written,
    see `read_rows`. Raises UserError for what is not available, or while rows are read.
    """
    if data_file is not None:
        from data.reading.rows import read_rows

        files = {"train": data_file, "validation": val_file, "test": test_file}
        files = {split: path for split, path in files.items() if path is not None}
        opened = {split: (read_rows(path, **form), str(path)) for split, path in files.items()}
        return NamedSet(str(data_file), task, text=None, label=None), opened
    entry = find(task, dataset or names(task)[0])
    if "/" in entry.name:
        from data.sets.user_sets import user_splits

        return entry, user_splits(entry.name, file_of)
    if not entry.splits:
        module, function = generator.split(".")
        rows = getattr(import_module(f"data.generated.{module}"), function)()
        return entry, {"train": (rows, entry.name)}
    named = {split: (read_split(entry, split), f"{entry.name} ({split})") for split in entry.splits}
    return entry, named


def read_split(entry: NamedSet, split: str) -> Iterator[dict]:
    """Rows of one split ("train", "validation", "test") as dicts: from MINISUM_DATA or the hub.

    Raises UserError if it is in neither place, naming both and the reason the hub gave.
    """
    path = local_file(entry, split)
    if path is not None:
        from data.reading.rows import read_rows

        return read_rows(path)
    root = os.environ.get("MINISUM_DATA")
    if root:
        absence = f"{entry.name} is not in MINISUM_DATA ({Path(root, entry.name)})"
    else:
        absence = f"{entry.name} is not on this machine (MINISUM_DATA is not set)"
    if entry.hub is None:
        raise UserError(f"{absence}, and the hub has no copy of it")
    from data.reading.hub import hub_rows  # the network's modules, only when they are needed

    return hub_rows(entry.hub, entry.config, entry.revision, split, absence)


def file_of(name, stem) -> Path | None:
    """$MINISUM_DATA/NAME/STEM with one of the suffixes, None without one."""
    from data.reading.rows import SUFFIXES

    root = os.environ.get("MINISUM_DATA")
    paths = (Path(root or "", name, f"{stem}{s}{gz}") for s in SUFFIXES for gz in ("", ".gz"))
    return next((path for path in paths if root and path.is_file()), None)


def local_file(entry: NamedSet, split: str) -> Path | None:
    """The file of a split under MINISUM_DATA, None without one.

    The file of a set with one split may also be called like the set. UserError for a folder that
    holds other splits but not this one: it would come from elsewhere and might not fit the rest.
    """
    root = os.environ.get("MINISUM_DATA")
    if not root:
        return None
    folder = Path(root, entry.name)
    own = (entry.name, entry.name.lower()) if entry.splits == (split,) else ()
    for stem in (*own, split):
        if path := file_of(entry.name, stem):
            return path
    for other in entry.splits:
        if any(folder.glob(f"{other}.*")):
            raise UserError(f"{folder} holds a {other} file but no {split} file")
    return None
