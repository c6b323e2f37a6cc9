"""Tables of a text, some numbers and a number to predict, from any of their sources.

A numeric cell may be missing: empty, null, NaN, "NA", "-" and the like; `Standardiser` (in
minisum.columns) says how the models see it. A row whose target is missing is left out.
"""

import math
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from data.fingerprint import data_sha256
from data.generated import python_functions
from data.reading.cells import read_text
from data.reading.columns import find_text_column, require_columns
from data.sets import registry
from minisum.columns import read_number
from minisum.errors import UserError
from minisum.text.splits import choose_subset, hold_out_test, hold_out_validation

NAMES = registry.names("multimodal")
DEFAULT = NAMES[0]


@dataclass(frozen=True)
class Columns:
    """Which column is the text, which are the numbers, and which is to be predicted."""

    text: str
    numbers: tuple[str, ...]
    target: str | None

    def __post_init__(self):
        if not self.numbers:
            raise UserError("at least one numeric column is needed")
        for name in self.named:
            if self.named.count(name) > 1:
                raise UserError(f"column {name!r} cannot play two parts: text, number, target")

    @property
    def named(self) -> tuple[str, ...]:
        """All of them; without the target where there is none."""
        every = (self.text, *self.numbers, self.target)
        return every if self.target is not None else every[:-1]


@dataclass(frozen=True)
class Table:
    """N rows: texts, numbers (N, k) float64 with NaN where missing, targets (N,) float64.

    left_out: how many more rows were read, whose target is missing.
    """

    texts: list[str]
    numbers: np.ndarray
    targets: np.ndarray
    left_out: int = 0

    def __len__(self):
        return len(self.texts)

    @property
    def labels(self):
        """(N,) zeros: for a split by class, all rows are of one class."""
        return np.zeros(len(self), int)

    def take(self, rows) -> "Table":
        return Table([self.texts[i] for i in rows], self.numbers[rows], self.targets[rows])


@dataclass(frozen=True)
class MultimodalData:
    """A regression task: splits["train"], ["val"] and ["test"] of the same columns.

    sha256: fingerprint of the columns and their content, before validation was held out.
    left_out: rows of the source whose target is missing.
    """

    name: str
    columns: Columns
    splits: dict[str, Table]
    sha256: str
    left_out: int


def load_multimodal(
    dataset=None, data_file=None, test_file=None, text_column=None, numeric_columns=None,
    target=None, limit_train=None, limit_test=None, validation=0.0, seed=0, val_file=None, **form,
) -> MultimodalData:  # fmt: skip
    """The set called `dataset` (one of NAMES), or the one in `data_file`.

    numeric_columns: names, in order. A named set has columns of its own, any of which may be
    replaced. A file without `test_file` is split 80/20 by a hash of the text, the same for every
    seed. The limits keep that many rows, drawn by the seed; `validation` is the fraction of the
    training rows that is held out, by the seed too, unless the set or `val_file` has others. form:
    how files are written, see `read_rows`. Raises UserError for what is not available or cannot be
    read, and for a target that never changes.
    """
    numbers = None if numeric_columns is None else tuple(numeric_columns)
    chosen = {"text": text_column, "numbers": numbers, "target": target}
    chosen = {part: columns for part, columns in chosen.items() if columns is not None}
    entry, sources = registry.open_set(
        "multimodal", dataset, data_file, test_file, "python_functions.rows", val_file, **form
    )
    name, (rows, where) = entry.name, sources["train"]
    first = next(rows := iter(rows))
    sources["train"] = chain([first], rows), where
    columns = _columns(entry, chosen, list(first))
    tables = {s: read_table(rows, where, columns) for s, (rows, where) in sources.items()}
    left_out = sum(table.left_out for table in tables.values())
    train, test, val = map(tables.get, ("train", "test", "validation"))
    if test is None:
        train, test = hold_out_test(train)
    for part, table in (("training", train), ("test", test)):
        if not len(table):
            raise UserError(f"{name} has no {part} row with a target")
    if train.targets.min() == train.targets.max():
        raise UserError(
            f"{name}: every training row has the same {columns.target!r}, {train.targets[0]:g}; "
            "there is nothing to learn"
        )
    train = train.take(choose_subset(train.labels, limit_train, seed, stream=0))
    test = test.take(choose_subset(test.labels, limit_test, seed, stream=1))
    tables = [train, test] if val is None else [train, test, val]
    parts = ((*table.texts, table.numbers, table.targets) for table in tables)
    sha256 = data_sha256([repr(columns).encode(), *chain.from_iterable(parts)])
    if val is None:
        train, val = hold_out_validation(train, validation, seed)
    splits = {"train": train, "val": val, "test": test}
    return MultimodalData(name, columns, splits, sha256, left_out)


def read_table(rows, where, columns: Columns, start=1) -> Table:
    """The `columns` of `rows` as a Table; targets are 0 if columns.target is None.

    `where` names the source in errors, which count rows from `start`. Raises UserError for a
    column that a row lacks and for a cell that is not a number, by row and column.
    """
    texts, numbers, targets, left_out = [], [], [], 0
    for number, row in enumerate(rows, start=start):
        place = f"{where}, row {number}"
        require_columns(row, columns.named, place)
        target = 0.0
        if columns.target is not None:
            target = read_number(row[columns.target], columns.target, place)
        if math.isnan(target):
            left_out += 1
            continue
        text = row[columns.text]
        # A missing text is a text without words.
        texts.append("" if text is None else read_text(text, columns.text, place))
        numbers.append([read_number(row[name], name, place) for name in columns.numbers])
        targets.append(target)
    shape = (len(texts), len(columns.numbers))
    return Table(texts, np.array(numbers, np.float64).reshape(shape), np.array(targets), left_out)


def _columns(entry, chosen, header):
    """The Columns that are `chosen`, and what is not by the set's own or, in a file, by name."""
    if entry.name in NAMES:
        generated = python_functions.TEXT, python_functions.NUMBERS, python_functions.TARGET
        own = generated if entry.name == DEFAULT else (entry.text, entry.numbers, entry.target)
        return replace(Columns(*own), **chosen)
    for part, flag in (("numbers", "--numeric-columns a,b,c"), ("target", "--target NAME")):
        if not chosen.get(part):
            raise UserError(f"{entry.name}: name the columns to use with {flag}")
    if "text" not in chosen:
        chosen["text"] = find_text_column(header, entry.name)
    return Columns(**chosen)
