"""Tables of a text, some numbers and a number to predict, from any of their sources.

A numeric cell may be missing: empty, null, NaN, "NA", "-" and the like; `Standardiser` tells what
the models see of it. A row whose target is missing teaches nothing and is left out.
"""

import hashlib
import math
from dataclasses import dataclass, field, replace

import numpy as np

from data.generated import python_functions
from data.reading.cells import read_number
from data.reading.columns import TEXT_NAMES
from data.reading.rows import read_rows
from data.reading.sources import Source, read_split
from data.reading.splits import choose_subset, hold_out
from minisum.errors import UserError

DEFAULT = "python_functions"
FILE_TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Columns:
    """Which column is the text, which are the numbers, and which is to be predicted."""

    text: str
    numbers: tuple[str, ...]
    target: str | None

    def __post_init__(self):
        if not self.numbers:
            raise UserError("At least one numeric column is needed.")
        named = [self.text, *self.numbers, *([] if self.target is None else [self.target])]
        for name in named:
            if named.count(name) > 1:
                raise UserError(f"Column {name!r} cannot play two parts: text, number, target.")


@dataclass
class Table:
    """N rows: texts, numbers (N, k) float64 with NaN where missing, targets (N,) float64."""

    texts: list[str] = field(default_factory=list)
    numbers: np.ndarray = None
    targets: np.ndarray = None
    left_out: int = 0  # rows whose target is missing

    def __len__(self):
        return len(self.texts)

    def take(self, rows) -> "Table":
        return Table(
            [self.texts[i] for i in rows], self.numbers[rows], self.targets[rows], self.left_out
        )


@dataclass(frozen=True)
class MultimodalData:
    """A regression task: `columns` of the rows to learn from and of those to test on."""

    name: str
    columns: Columns
    train: Table
    test: Table

    @property
    def sha256(self) -> str:
        """Fingerprint of all columns that are used, in order; equal across machines."""
        digest = hashlib.sha256(repr(self.columns).encode())
        for table in (self.train, self.test):
            for text in table.texts:
                encoded = text.encode()
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
            for array in (table.numbers, table.targets):
                # One pattern for NaN, of which there are many.
                clean = np.where(np.isnan(array), np.nan, array).astype("<f8")
                digest.update(clean.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Published:
    """A published set, with the columns of the paper."""

    source: Source
    columns: Columns


_CIVIL = Columns("text", ("toxicity", "severe_toxicity", "obscene", "threat"), "identity_attack")
PUBLISHED = {
    entry.source.name: entry
    for entry in (
        Published(Source("civil_comments", "google/civil_comments"), _CIVIL),
        # The posts of the Toxic Spans data with shares of its raters; there is no copy on the hub.
        Published(Source("civil_comments_spans", "civil_comments_spans"), _CIVIL),
    )
}
NAMES = (DEFAULT, *PUBLISHED)


def load_multimodal(
    dataset=None,
    data_file=None,
    test_file=None,
    text_column=None,
    numeric_columns=None,
    target=None,
    limit_train=None,
    limit_test=None,
    seed=0,
) -> MultimodalData:
    """The set called `dataset` (one of NAMES), or the one in `data_file`.

    numeric_columns: names, in order. A named set has columns of its own, any of which may be
    replaced. A file without `test_file` is split 80/20 by a hash of the text, the same for every
    seed. Raises UserError for what cannot be had or read, and for a target that never changes.
    """
    chosen = {"text": text_column, "numbers": numeric_columns, "target": target}
    if data_file is not None:
        data = _from_files(data_file, test_file, chosen)
    else:
        data = _named(dataset or DEFAULT, chosen)
    for part, table in (("training", data.train), ("test", data.test)):
        if not len(table):
            raise UserError(f"{data.name} has no {part} row with a target.")
    if data.train.targets.min() == data.train.targets.max():
        value = data.train.targets[0]
        raise UserError(
            f"{data.name}: every training row has the same {data.columns.target!r}, {value:g}; "
            "there is nothing to learn."
        )
    return replace(
        data,
        train=_subset(data.train, limit_train, seed, 0),
        test=_subset(data.test, limit_test, seed, 1),
    )


def read_table(rows, where, columns: Columns, start=1) -> Table:
    """The `columns` of `rows` as a Table; without a target if columns.target is None.

    `where` names the source in errors, which count rows from `start`. Raises UserError for a
    column that a row lacks and for a cell that is no number, by row and column.
    """
    texts, numbers, targets, left_out = [], [], [], 0
    for number, row in enumerate(rows, start=start):
        place = f"{where}, row {number}"
        for name in (columns.text, *columns.numbers, columns.target):
            if name is not None and name not in row:
                has = ", ".join(repr(column) for column in row)
                raise UserError(f"{place}: there is no column {name!r}; it has {has}.")
        target = 0.0
        if columns.target is not None:
            target = read_number(row[columns.target], columns.target, place)
        if math.isnan(target):
            left_out += 1
            continue
        texts.append(_text(row[columns.text], columns.text, place))
        numbers.append([read_number(row[name], name, place) for name in columns.numbers])
        targets.append(target)
    shape = (len(texts), len(columns.numbers))
    return Table(texts, np.array(numbers, np.float64).reshape(shape), np.array(targets), left_out)


@dataclass(frozen=True)
class Standardiser:
    """Columns to mean 0 and deviation 1, as measured on the training rows.

    A missing value becomes the mean, 0. If any is missing in training, every cell is described by
    two numbers, its value and whether it is missing, so that a model can tell it from an average
    one. A column that never changes becomes 0 throughout.
    """

    mean: list[float]
    deviation: list[float]
    flagged: bool

    @classmethod
    def fit(cls, numbers, names) -> "Standardiser":
        """numbers (N, k). UserError for a column without a value, or with values too far apart."""
        known = ~np.isnan(numbers)
        for i in np.flatnonzero(~known.any(axis=0)):
            raise UserError(f"Column {names[i]!r} has no value in any training row: leave it out.")
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.nanmean(numbers, axis=0)
            deviation = np.nanstd(numbers, axis=0)
        for i in np.flatnonzero(~np.isfinite(deviation)):
            raise UserError(f"Column {names[i]!r} holds numbers too large to be squared.")
        # The mean of equal numbers is off by rounding, and so are their distances from it.
        deviation[deviation <= 1e-12 * np.abs(mean)] = 0
        return cls(mean.tolist(), deviation.tolist(), bool((~known).any()))

    @property
    def inputs(self) -> int:
        """Numbers that describe a cell."""
        return 2 if self.flagged else 1

    def __call__(self, numbers) -> np.ndarray:
        """numbers (N, k) with NaN -> (N, k, inputs) float32."""
        deviation = np.array(self.deviation)
        varies = deviation > 0
        scaled = (numbers - self.mean) / np.where(varies, deviation, 1)
        missing = np.isnan(numbers)
        described = [np.where(missing | ~varies, 0, scaled)]
        if self.flagged:
            described.append(missing)
        return np.stack(described, axis=2).astype(np.float32)


def _named(name, chosen):
    if name == DEFAULT:
        own = Columns(python_functions.TEXT, python_functions.NUMBERS, python_functions.TARGET)
        columns = _columns(own, chosen)
        table = read_table(python_functions.rows(), name, columns)
        return _cut(name, columns, table, python_functions.TEST_FRACTION)
    if name not in PUBLISHED:
        raise UserError(f"There is no data set {name!r}; known are {', '.join(NAMES)}.")
    entry = PUBLISHED[name]
    columns = _columns(entry.columns, chosen)
    train, test = (
        read_table(read_split(entry.source, split), f"{name} ({split})", columns)
        for split in ("train", "test")
    )
    return MultimodalData(name, columns, train, test)


def _from_files(data_file, test_file, chosen):
    for part, flag in (("numbers", "--numeric-columns a,b,c"), ("target", "--target NAME")):
        if not chosen[part]:
            raise UserError(f"{data_file}: say which columns to use with {flag}.")
    if chosen["text"] is None:
        first = next(iter(read_rows(data_file)))
        found = [c for c in first if c.strip().lower() in TEXT_NAMES]
        if len(found) != 1:
            raise UserError(f"{data_file}: say which column is the text with --text-column NAME.")
        chosen = chosen | {"text": found[0]}
    columns = Columns(chosen["text"], tuple(chosen["numbers"]), chosen["target"])
    where = str(data_file)
    table = read_table(read_rows(data_file), where, columns)
    if test_file is None:
        return _cut(where, columns, table, FILE_TEST_FRACTION)
    test = read_table(read_rows(test_file), str(test_file), columns)
    return MultimodalData(where, columns, table, test)


def _columns(own, chosen):
    """A set's own columns, with those that were chosen in their place."""
    given = {part: value for part, value in chosen.items() if value is not None}
    if "numbers" in given:
        given["numbers"] = tuple(given["numbers"])
    return replace(own, **given)


def _cut(name, columns, table, fraction):
    """Cut in two by the text, so that every run and seed agrees on the test."""
    kept, held = hold_out(table.texts, np.zeros(len(table), int), fraction, "test")
    return MultimodalData(name, columns, table.take(kept), table.take(held))


def _subset(table, limit, seed, stream):
    if limit is None:
        return table
    return table.take(choose_subset(np.zeros(len(table), int), limit, seed, stream))


def _text(value, column, place):
    """The text; a missing one is a text without words."""
    if value is None:
        return ""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise UserError(f"{place}: column {column!r} holds {kind}, not text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: column {column!r} holds half of a surrogate pair.") from error
    return value
