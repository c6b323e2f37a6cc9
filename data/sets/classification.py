"""Text classification sets: texts and class numbers in three splits, from any of their sources."""

from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from data.fingerprint import data_sha256
from data.reading.columns import class_order, number_labels, read_labelled
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
    columns: the names of those of the text and the label, as read from its source.
    """

    name: str
    class_names: list[str]
    splits: dict[str, Examples]
    sha256: str
    columns: dict[str, str | None] | None = None


def load_classification(
    dataset=None, data_file=None, test_file=None, text_column=None, label_column=None,
    limit_train=None, limit_test=None, validation=0.0, seed=0,
) -> ClassificationData:  # fmt: skip
    """The set called `dataset` (one of NAMES), or the one in `data_file`.

    A file without `test_file` is split 80/20 by a hash of the text, the same for every seed; see
    `make_splits` for the other arguments. Raises UserError for a set that is not available, cannot
    be read, or has fewer than two classes.
    """
    if data_file is None:
        given = {"test file": test_file, "text column": text_column, "label column": label_column}
        for option, value in given.items():
            if value is not None:
                raise UserError(f"a {option} goes with a data file; the named sets have theirs")
    elif dataset is not None:
        raise UserError("choose a named data set or a data file, not both")
    source = registry.open_set("classification", dataset, data_file, test_file, "python_docs.rows")
    name, class_names, train, test, columns = _read(*source, text_column, label_column)
    if len(class_names) < 2:
        raise UserError(f"{name} has one class only ({class_names[0]!r})")
    if test is None:
        train, test = hold_out_test(train)
    settings = limit_train, limit_test, validation, seed
    return replace(make_splits(name, class_names, train, test, *settings), columns=columns)


def make_splits(
    name, class_names, train, test, limit_train=None, limit_test=None, validation=0.0, seed=0
) -> ClassificationData:
    """The data set of the Examples `train` and `test`.

    The limits keep that many of each, drawn by the seed in the proportions of the classes;
    `validation` is the fraction of the training examples that is held out, by the seed too.
    """
    train = train.take(choose_subset(train.labels, limit_train, seed, stream=0))
    test = test.take(choose_subset(test.labels, limit_test, seed, stream=1))
    sha256 = data_sha256(chain(_content(train, class_names), _content(test, class_names)))
    train, val = hold_out_validation(train, validation, seed)
    return ClassificationData(name, class_names, {"train": train, "val": val, "test": test}, sha256)


def _content(examples, class_names):
    yield len(examples)
    for text, label in zip(examples.texts, examples.labels, strict=True):
        yield text
        yield class_names[label]


def _read(entry, sources, text_column, label_column):
    """(name, class names, train, test or None, columns) of an open set.

    The named ones may hold empty texts. The test set has the columns of the training set.
    """
    columns = text_column or entry.text, label_column or entry.label
    parts = {}
    for split, (rows, where) in sources.items():
        part = read_labelled(rows, where, *columns, allow_empty=entry.text is not None)
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
    return entry.name, class_names, examples["train"], examples.get("test"), named
