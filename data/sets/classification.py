"""Text classification sets: texts and class numbers in three splits, from any of their sources."""

from dataclasses import dataclass
from itertools import chain

import numpy as np

from data.fingerprint import data_sha256
from data.reading.columns import class_order, number_labels, read_labelled
from data.reading.rows import read_rows
from data.reading.splits import draw_subset, hold_out_test, hold_out_validation
from data.sets import registry
from minisum.errors import UserError

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
    """

    name: str
    class_names: list[str]
    splits: dict[str, Examples]
    sha256: str


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
                raise UserError(f"A {option} goes with a data file; the named sets have theirs.")
        source = _named(dataset or DEFAULT)
    elif dataset is not None:
        raise UserError("Choose a named data set or a data file, not both.")
    else:
        source = _from_files(data_file, test_file, text_column, label_column)
    name, class_names, train, test = source
    if len(class_names) < 2:
        raise UserError(f"{name} has one class only ({class_names[0]!r}).")
    if test is None:
        train, test = hold_out_test(train)
    return make_splits(name, class_names, train, test, limit_train, limit_test, validation, seed)


def make_splits(
    name, class_names, train, test, limit_train=None, limit_test=None, validation=0.0, seed=0
) -> ClassificationData:
    """The data set of the Examples `train` and `test`.

    The limits keep that many of each, drawn by the seed in the proportions of the classes;
    `validation` is the fraction of the training examples that is held out, by the seed too.
    """
    train = draw_subset(train, limit_train, seed, stream=0)
    test = draw_subset(test, limit_test, seed, stream=1)
    sha256 = data_sha256(chain(_content(train, class_names), _content(test, class_names)))
    train, val = hold_out_validation(train, validation, seed)
    return ClassificationData(name, class_names, {"train": train, "val": val, "test": test}, sha256)


def _content(examples, class_names):
    yield len(examples)
    for text, label in zip(examples.texts, examples.labels, strict=True):
        yield text
        yield class_names[label]


def _named(name):
    """(name, class names, train, test or None)."""
    if name == DEFAULT:
        from data.generated import python_docs

        texts, labels, class_names = python_docs.load()
        return name, class_names, Examples(texts, labels), None
    entry = registry.find("classification", name)
    columns = {"text_column": entry.text, "label_column": entry.label, "allow_empty": True}
    train, test = (
        read_labelled(registry.read_split(entry, split), f"{name} ({split})", **columns)
        for split in ("train", "test")
    )
    for part in (train, test):
        part.texts = entry.clean(part.texts)
    order = class_order(train.labels)
    readable = train.names
    if not readable and order == [str(number) for number in range(len(entry.class_names))]:
        readable = dict(zip(order, entry.class_names, strict=True))
    return _numbered(name, train, test, order, readable)


def _from_files(data_file, test_file, text_column, label_column):
    where = str(data_file)
    train = read_labelled(read_rows(data_file), where, text_column, label_column)
    order = class_order(train.labels)
    if len(order) == len(train.labels) > 20:
        raise UserError(
            f"{where}: every row has a {train.label_column!r} of its own, "
            f"so the column does not hold classes."
        )
    test = None
    if test_file is not None:
        columns = train.text_column, train.label_column
        test = read_labelled(read_rows(test_file), str(test_file), *columns)
    return _numbered(where, train, test, order, train.names)


def _numbered(name, train, test, order, readable):
    train = Examples(train.texts, number_labels(train.labels, order, name))
    if test is not None:
        labels = number_labels(test.labels, order, f"The test set of {name}")
        test = Examples(test.texts, labels)
    return name, [readable.get(label, label) for label in order], train, test
