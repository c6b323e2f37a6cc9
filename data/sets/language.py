"""Corpora for language models: texts to train on, to choose the epoch by, and to test on."""

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from data.generated import python_docs
from data.reading.columns import TEXT_NAMES
from data.reading.rows import file_kind, read_rows
from data.reading.sources import Source, read_split
from data.reading.splits import choose_subset, hold_out
from minisum.errors import UserError

DEFAULT = "python_docs"
TEST_FRACTION = 0.05
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class LanguageData:
    """texts["train"], texts["val"] and texts["test"] are lists of documents."""

    name: str
    texts: dict[str, list[str]]

    @property
    def sha256(self) -> str:
        """Fingerprint of every text of every split, in order; equal across machines."""
        digest = hashlib.sha256()
        for split in SPLITS:
            digest.update(len(self.texts[split]).to_bytes(8, "little"))
            for text in self.texts[split]:
                encoded = text.encode()
                digest.update(len(encoded).to_bytes(8, "little"))
                digest.update(encoded)
        return digest.hexdigest()


@dataclass(frozen=True)
class Published:
    """A published set: which splits it has beside "train", and where its text stands.

    `cut` turns its rows into documents, where a row is only a line of one.
    """

    source: Source
    column: str = "text"
    has_validation: bool = False
    has_test: bool = True
    cut: object = None


def articles(lines):
    """Articles of WikiText from its lines; each begins with a heading ` = Title = `."""
    heading = re.compile(r" = [^=].* = \n?")
    found = []
    for line in lines:
        if heading.fullmatch(line) or not found:
            found.append([])
        found[-1].append(line)
    return ["".join(article) for article in found]


PUBLISHED = {
    entry.source.name: entry
    for entry in (
        Published(
            Source("wikitext-2", "Salesforce/wikitext", "wikitext-2-v1"),
            has_validation=True,
            cut=articles,
        ),
        Published(
            Source("wikitext-2-raw", "Salesforce/wikitext", "wikitext-2-raw-v1"),
            has_validation=True,
            cut=articles,
        ),
        Published(Source("imdb", "stanfordnlp/imdb")),
        Published(Source("ag_news", "fancyzhx/ag_news")),
        Published(
            Source("cmu-book-summaries", "textminr/cmu-book-summaries"),
            column="summary",
            has_test=False,
        ),
        # The hub's own parquet copy, because the main branch needs a loading script.
        Published(
            Source(
                "tiny_shakespeare", "karpathy/tiny_shakespeare", revision="refs/convert/parquet"
            ),
            has_validation=True,
        ),
    )
}
NAMES = (DEFAULT, *PUBLISHED)
WITH_VALIDATION = tuple(name for name, entry in PUBLISHED.items() if entry.has_validation)


def load_language(
    dataset=None,
    data_file=None,
    test_file=None,
    text_column=None,
    by_line=False,
    validation=0.05,
    limit_train=None,
    limit_test=None,
    seed=0,
) -> LanguageData:
    """The corpus called `dataset` (one of NAMES), or the one in `data_file`.

    by_line: running text (WikiText, Shakespeare, a .txt file) counts a line with any text as a
    document, as the published code does. What comes in one piece is split: a .txt file into
    consecutive parts at line borders, documents by a hash of their text; `validation` and
    TEST_FRACTION are the shares. The limits keep that many documents, drawn at random.

    Raises UserError for a corpus that cannot be had or read, and for one too small to be split.
    """
    if data_file is not None:
        name = str(data_file)
        texts = _from_file(data_file, test_file, text_column, by_line, validation)
    else:
        name = dataset or DEFAULT
        if name not in NAMES:
            raise UserError(f"There is no corpus {name!r}; known are {', '.join(NAMES)}.")
        texts = _named(name, by_line, validation)
    limits = {"train": limit_train, "test": limit_test}
    for stream, (split, limit) in enumerate(limits.items()):
        kept = choose_subset(np.zeros(len(texts[split])), limit, seed, stream)
        texts[split] = [texts[split][i] for i in kept]
    return LanguageData(name, texts)


def _named(name, by_line, validation):
    if name == DEFAULT:
        documents = [text for _, text in python_docs.documents()]
        return _split(documents, validation, TEST_FRACTION)
    entry = PUBLISHED[name]
    texts = {}
    for split, wanted, there in (
        ("train", "train", True),
        ("val", "validation", entry.has_validation),
        ("test", "test", entry.has_test),
    ):
        if there:
            rows = read_split(entry.source, wanted)
            texts[split] = _texts(rows, f"{name} ({wanted})", entry.column)
            if entry.has_validation:
                texts[split] = lines(texts[split]) if by_line else (entry.cut or list)(texts[split])
    if not entry.has_validation:
        texts |= _split(texts["train"], validation, 0 if entry.has_test else TEST_FRACTION)
    return texts


def _from_file(data_file, test_file, text_column, by_line, validation):
    test_fraction = 0 if test_file else TEST_FRACTION
    if is_running_text(data_file):
        if text_column is not None:
            raise UserError(f"{data_file} is running text and has no column {text_column!r}.")
        texts = split_running_text(_whole(data_file), validation, test_fraction, str(data_file))
        if by_line:
            texts = {split: lines(parts) for split, parts in texts.items()}
    else:
        documents = _texts(read_rows(data_file), str(data_file), text_column)
        texts = _split(documents, validation, test_fraction)
    if test_file and is_running_text(test_file):
        texts["test"] = lines([_whole(test_file)]) if by_line else [_whole(test_file)]
    elif test_file:
        texts["test"] = _texts(read_rows(test_file), str(test_file), text_column)
    return texts


def is_running_text(path):
    return file_kind(path)[0] == ".txt"


def _whole(path):
    return "\n".join(row["text"] for row in read_rows(path)) + "\n"


def lines(texts):
    """Every line that has any text, without its end."""
    return [line for text in texts for line in text.splitlines() if line.strip()]


def split_running_text(text, validation, test, where):
    """Consecutive parts of `text`, the last two about those shares of its length.

    Lines stay whole and in order; the parts joined are the text. UserError if a part is empty.
    """
    ends = np.cumsum([len(line) for line in text.splitlines(keepends=True)])
    starts = np.concatenate([[0], ends])
    first, second = (
        int(starts[np.abs(starts - len(text) * (1 - share)).argmin()])
        for share in (validation + test, test)
    )
    parts = {"train": text[:first], "val": text[first:second], "test": text[second:]}
    for name, part in parts.items():
        if not part.strip() and (name != "test" or test):
            raise UserError(f"{where} has too few lines to be split: its {name} part is empty.")
    return {name: [part] for name, part in parts.items() if part}


def _split(documents, validation, test):
    """Documents by a hash of their text, so that equal ones stay on one side."""
    texts, rest = {}, list(documents)
    for name, share in (("test", test), ("val", validation / (1 - test))):
        if share:
            kept, held = hold_out(rest, np.zeros(len(rest), int), share, name)
            texts[name] = [rest[i] for i in held]
            rest = [rest[i] for i in kept]
    return texts | {"train": rest}


def _texts(rows, where, column):
    """The text column of rows; guessed by its name if `column` is None."""
    texts = []
    for number, row in enumerate(rows, start=1):
        if column is None:
            column = next((name for name in TEXT_NAMES if name in row), None)
            if column is None:
                listed = ", ".join(repr(name) for name in row)
                raise UserError(f"{where}: which column is the text? It has {listed}.")
        if not isinstance(row.get(column), str):
            raise UserError(f"{where}, row {number}: there is no text in column {column!r}.")
        texts.append(row[column])
    return texts
