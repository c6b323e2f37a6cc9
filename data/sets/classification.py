"""Text classification sets: texts and class numbers in three splits, from any of their sources."""

from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from data.fingerprint import data_sha256
from data.reading.cells import class_order, number_labels
from data.sets import registry
from minisum.errors import UserError
from minisum.text.splits import choose_subset, hold_out_test, hold_out_validation

NAMES = registry.names("classification")
DEFAULT = NAMES[0]


@dataclass(frozen=True)
class Examples:
    """N texts and their class numbers (N,) int32."""

    texts: list[str]
    labels: np.ndarray

    def __len__(self):
        return len(self.texts)

    def take(self, rows) -> "Examples":
        return Examples([self.texts[i] for i in rows], self.labels[rows])


@dataclass(frozen=True)
class ClassificationData:
    """A classification task: splits["train"], ["val"] and ["test"], labels < len(class_names).

    sha256: fingerprint of every text with the name of its class, before validation was held out.
    columns: the names of those of the text and the label, as read from its source. left_out: rows
    without a text or a label.
    """

    name: str
    class_names: list[str]
    splits: dict[str, Examples]
    sha256: str
    columns: dict[str, str | None] | None = None
    left_out: int = 0


def load_classification(
    dataset=None, data_file=None, test_file=None, text_column=None, label_column=None,
    limit_train=None, limit_test=None, validation=0.0, seed=0, val_file=None, skip_empty=False,
    **form,
) -> ClassificationData:  # fmt: skip
    """The set called `dataset` (one of NAMES), or the one in `data_file`.

    A file without `test_file` is split 80/20 by a hash of the text, the same for every seed; see
    `make_splits` for the other arguments. A validation split of the set, or in `val_file`, is what
    validation rows are. `skip_empty` leaves out rows without a text or a label. form: how files
    are written, see `read_rows`. Raises UserError for a set that is not available, cannot be read,
    or has fewer than two classes.
    """
    if data_file is None and "/" not in (dataset or DEFAULT):
        given = {"test file": test_file, "text column": text_column, "label column": label_column}
        for option, value in given.items():
            if value is not None:
                raise UserError(f"a {option} goes with a data file; the named sets have theirs")
    elif data_file is not None and dataset is not None:
        raise UserError("choose a named data set or a data file, not both")
    entry, sources = registry.open_set(
        "classification", dataset, data_file, test_file, "python_docs.rows", val_file, **form
    )
    class_names, parts, about = _read(entry, sources, text_column, label_column, skip_empty)
    if len(class_names) < 2:
        raise UserError(f"{entry.name} has one class only ({class_names[0]!r})")
    train, test = parts["train"], parts.get("test")
    if test is None:
        train, test = hold_out_test(train)
    settings = limit_train, limit_test, validation, seed, parts.get("validation")
    return replace(make_splits(entry.name, class_names, train, test, *settings), **about)


def make_splits(
    name, class_names, train, test, limit_train=None, limit_test=None, validation=0.0, seed=0,
    val=None,
) -> ClassificationData:  # fmt: skip
    """The data set of the Examples `train` and `test`.

    The limits keep that many of each, drawn by the seed in the proportions of the classes;
    `validation` is the fraction of the training examples that is held out, by the seed too, unless
    `val` has others.
    """
    train = train.take(choose_subset(train.labels, limit_train, seed, stream=0))
    test = test.take(choose_subset(test.labels, limit_test, seed, stream=1))
    parts = [train, test] if val is None else [train, test, val]
    sha256 = data_sha256(chain.from_iterable(_content(part, class_names) for part in parts))
    if val is None:
        train, val = hold_out_validation(train, validation, seed)
    return ClassificationData(name, class_names, {"train": train, "val": val, "test": test}, sha256)


def _content(examples, class_names):
    yield len(examples)
    for text, label in zip(examples.texts, examples.labels, strict=True):
        yield text
        yield class_names[label]


def _read(entry, sources, text_column, label_column, skip_empty):
    """(class names, split -> Examples, what else a ClassificationData says) of an open set.

    The named ones may hold empty texts. The test set has the columns of the training set.
    """
    from data.reading.columns import read_labelled

    columns = text_column or entry.text, label_column or entry.label
    parts = {}
    for split, (rows, where) in sources.items():
        part = read_labelled(rows, where, *columns, bool(entry.text), skip_empty)
        columns = part.text_column, part.label_column
        parts[split] = part
    train = parts["train"]
    order, readable = class_order(train.labels), train.names
    if len(order) == len(train.labels) > 20:
        raise UserError(
            f"{entry.name}: every row has a {train.label_column!r} of its own, "
            f"so the column does not hold classes"
        )
    if not readable and order == [str(number) for number in range(len(entry.class_names))]:
        readable = dict(zip(order, entry.class_names, strict=True))
    examples = {}
    for split, part in parts.items():
        labels = number_labels(part.labels, order, f"The {split} set of {entry.name}")
        examples[split] = Examples(entry.clean(part.texts), labels)
    class_names = [readable.get(label, label) for label in order]
    named = {"text": train.text_column, "label": train.label_column}
    left_out = sum(part.left_out for part in parts.values())
    return class_names, examples, {"columns": named, "left_out": left_out}
