"""Text classification sets: texts, class numbers and class names, from any of their sources."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from data.generated import python_docs
from data.reading.columns import class_order, number_labels, read_labelled
from data.reading.rows import read_rows
from data.reading.sources import Source, read_split
from data.reading.splits import choose_subset, hold_out
from data.sets import newsgroups
from minisum.errors import UserError

DEFAULT = "python_docs"
FILE_TEST_FRACTION = 0.2


@dataclass(frozen=True)
class ClassificationData:
    """A classification task. Labels are int32, below len(class_names)."""

    name: str
    train_texts: list[str]
    train_labels: np.ndarray
    test_texts: list[str]
    test_labels: np.ndarray
    class_names: list[str]

    @property
    def sha256(self) -> str:
        """Fingerprint of every text with the name of its class, in order; equal across machines."""
        digest = hashlib.sha256()
        for texts, labels in (
            (self.train_texts, self.train_labels),
            (self.test_texts, self.test_labels),
        ):
            digest.update(len(texts).to_bytes(8, "little"))
            for text, label in zip(texts, labels, strict=True):
                for part in (text, self.class_names[label]):
                    encoded = part.encode()
                    digest.update(len(encoded).to_bytes(8, "little"))
                    digest.update(encoded)
        return digest.hexdigest()


@dataclass(frozen=True)
class Published:
    """A published set. `class_names` serves copies that carry bare numbers only."""

    source: Source
    class_names: tuple[str, ...] = ()
    text_column: str = "text"
    label_column: str = "label"


PUBLISHED = {
    entry.source.name: entry
    for entry in (
        Published(
            Source("ag_news", "fancyzhx/ag_news"),
            class_names=("World", "Sports", "Business", "Sci/Tech"),
        ),
        Published(Source("imdb", "stanfordnlp/imdb"), class_names=("negative", "positive")),
        Published(Source("20newsgroups", "SetFit/20_newsgroups")),
        # R8: the eight largest topics of the ModApte split, articles with a single topic. The
        # hub's own parquet copy, because the main branch needs a loading script.
        Published(
            Source("reuters", "yangwang825/reuters-21578", revision="refs/convert/parquet"),
            class_names=(
                "acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade",
            ),
        ),
    )
}  # fmt: skip
NAMES = (DEFAULT, *PUBLISHED)


def load_classification(
    dataset=None,
    data_file=None,
    test_file=None,
    text_column=None,
    label_column=None,
    limit_train=None,
    limit_test=None,
    seed=0,
) -> ClassificationData:
    """The set called `dataset` (one of NAMES), or the one in `data_file`.

    A file without `test_file` is split 80/20 by a hash of the text, the same for every seed. The
    seed draws only the subsets that the limits ask for. Raises UserError for a set that cannot
    be had, cannot be read, or has fewer than two classes.
    """
    if data_file is None:
        given = {"test file": test_file, "text column": text_column, "label column": label_column}
        for option, value in given.items():
            if value is not None:
                raise UserError(f"A {option} goes with a data file; the named sets have theirs.")
        data = _named(dataset or DEFAULT)
    elif dataset is not None:
        raise UserError("Choose a named data set or a data file, not both.")
    else:
        data = _from_files(data_file, test_file, text_column, label_column)
    if len(data.class_names) < 2:
        raise UserError(f"{data.name} has one class only ({data.class_names[0]!r}).")
    return limit(data, limit_train, limit_test, seed)


def limit(data: ClassificationData, train=None, test=None, seed=0) -> ClassificationData:
    """At most `train` and `test` examples, drawn at random in the classes' proportions."""
    kept_train = choose_subset(data.train_labels, train, seed, stream=0)
    kept_test = choose_subset(data.test_labels, test, seed, stream=1)
    return replace(
        data,
        train_texts=[data.train_texts[i] for i in kept_train],
        train_labels=data.train_labels[kept_train],
        test_texts=[data.test_texts[i] for i in kept_test],
        test_labels=data.test_labels[kept_test],
    )


def _named(name):
    if name == DEFAULT:
        texts, labels, class_names = python_docs.load()
        return _cut(name, texts, labels, class_names, python_docs.TEST_FRACTION)
    if name not in PUBLISHED:
        raise UserError(f"There is no data set {name!r}; known are {', '.join(NAMES)}.")
    return _published(PUBLISHED[name])


def _published(entry):
    name = entry.source.name
    train, test = (
        read_labelled(
            read_split(entry.source, split),
            f"{name} ({split})",
            entry.text_column,
            entry.label_column,
            allow_empty=True,
        )
        for split in ("train", "test")
    )
    if name == "20newsgroups":
        for part in (train, test):
            if newsgroups.is_raw(part.texts):
                part.texts = [newsgroups.strip_message(text) for text in part.texts]
    order = class_order(train.labels)
    names = train.names
    if not names and order == [str(number) for number in range(len(entry.class_names))]:
        names = dict(zip(order, entry.class_names, strict=True))
    return _with_test(name, train, test, order, names)


def _from_files(data_file, test_file, text_column, label_column):
    where = str(data_file)
    data = read_labelled(read_rows(data_file), where, text_column, label_column)
    order = class_order(data.labels)
    if len(order) == len(data.labels) > 20:
        raise UserError(
            f"{where}: every row has a {data.label_column!r} of its own, "
            f"so the column does not hold classes."
        )
    if test_file is None:
        labels = number_labels(data.labels, order, where)
        names = [data.names.get(label, label) for label in order]
        return _cut(where, data.texts, labels, names, FILE_TEST_FRACTION)
    test = read_labelled(read_rows(test_file), str(test_file), data.text_column, data.label_column)
    return _with_test(where, data, test, order, data.names)


def _with_test(name, train, test, order, names):
    return ClassificationData(
        name,
        train.texts,
        number_labels(train.labels, order, name),
        test.texts,
        number_labels(test.labels, order, f"The test set of {name}"),
        [names.get(label, label) for label in order],
    )


def _cut(name, texts, labels, class_names, fraction):
    """One set of examples cut in two by content, so that every run and seed agrees on the test."""
    if len(class_names) < 2:
        raise UserError(f"{name} has one class only ({class_names[0]!r}).")
    train, test = hold_out(texts, labels, fraction, "test")
    return ClassificationData(
        name,
        [texts[i] for i in train],
        labels[train],
        [texts[i] for i in test],
        labels[test],
        list(class_names),
    )
