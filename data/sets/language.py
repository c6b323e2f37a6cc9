"""Corpora for language models: documents to train on, to choose the epoch by, and to test on."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from data.fingerprint import data_sha256
from data.reading.cells import read_text
from data.reading.columns import find_text_column
from data.reading.folder import FEW, read_folder
from data.reading.rows import file_kind, read_rows
from data.sets import registry
from minisum.errors import UserError
from minisum.text.splits import SPLITS, choose_subset, hold_out

NAMES = registry.names("language")
DEFAULT = NAMES[0]
WITH_VALIDATION = tuple(name for name in NAMES if "validation" in registry.SETS[name].splits)
TEST_FRACTION = 0.05


@dataclass(frozen=True)
class LanguageData:
    """splits["train"], ["val"] and ["test"] are lists of documents; sha256 is of them all.

    left_out: documents without any text, where they were to be left out.
    """

    name: str
    splits: dict[str, list[str]]
    sha256: str
    left_out: int = 0


def load_language(
    dataset=None, data_file=None, test_file=None, text_column=None, by_line=False, validation=0.05,
    limit_train=None, limit_test=None, first_rows=False, seed=0, val_file=None, skip_empty=False,
    **form,
) -> LanguageData:  # fmt: skip
    """The corpus called `dataset` (one of NAMES), or the one in `data_file`.

    by_line: in running text (WikiText, Shakespeare, a .txt file) every line with any text is a
    document, as in the published code. A corpus without splits is split: a .txt file into
    consecutive parts between lines, documents by a hash of their text; `validation` and
    TEST_FRACTION are the fractions. The limits keep that many documents, drawn by the seed, or the
    first ones if `first_rows`; of running text, the first lines. A folder's .txt files are
    documents, few of them (FEW) one running text. `skip_empty` leaves out documents without text.
    form: how files are written, see `read_rows`.

    Raises UserError for a corpus that is not available, cannot be read, or is too small to split.
    """
    if data_file is not None:
        name = str(data_file)
        files = {"val": val_file, "test": test_file}
        found = _from_files(data_file, files, text_column, by_line, validation, form)
    else:
        name = dataset or DEFAULT
        found = _named(name, text_column, by_line, validation)
    counts = {split: len(texts) for split, texts in found.items()}
    if skip_empty:
        found = {split: [t for t in texts if t.strip()] for split, texts in found.items()}
    left_out = sum(counts[split] - len(texts) for split, texts in found.items())
    for stream, (split, limit) in enumerate((("train", limit_train), ("test", limit_test))):
        texts = found[split]
        if len(texts) == 1 and limit is not None:  # of running text, so many lines
            found[split] = ["".join(texts[0].splitlines(keepends=True)[:limit])]
        elif first_rows:
            found[split] = texts[:limit]
        else:
            chosen = choose_subset(np.zeros(len(texts)), limit, seed, stream)
            found[split] = [texts[i] for i in chosen]
    splits = {split: found.get(split, []) for split in SPLITS}
    content = chain.from_iterable((len(texts), *texts) for texts in splits.values())
    return LanguageData(name, splits, data_sha256(content), left_out)


def _named(name, text_column, by_line, validation):
    entry, sources = registry.open_set("language", name, None, None, "python_docs.documents")
    found = {}
    for split, (rows, where) in sources.items():
        texts = _documents(rows, where, entry.text or text_column)
        prepare = lines if by_line and entry.running_text else entry.clean
        found["val" if split == "validation" else split] = prepare(texts)
    if "val" not in found:
        test = 0 if "test" in found else TEST_FRACTION
        found |= _split_documents(found["train"], validation, test)
    return found


def _from_files(data_file, others, text_column, by_line, validation, form):
    """others: "val" and "test" -> a file, or None for a part of `data_file`."""
    test = 0 if others["test"] else TEST_FRACTION
    validation = 0 if others["val"] else validation
    encoding = form.get("encoding")
    folder = read_folder(data_file, encoding) if Path(data_file).is_dir() else []
    if len(folder) >= FEW:
        found = _split_documents(folder, validation, test)
    elif folder or is_running(data_file, form):
        if text_column is not None:
            raise UserError(f"{data_file} is running text and has no column {text_column!r}")
        whole = "\n".join(folder) or _whole(data_file, encoding)
        found = split_running_text(whole, validation, test, str(data_file))
        if by_line:
            found = {split: lines(parts) for split, parts in found.items()}
    else:
        documents = _documents(read_rows(data_file, **form), str(data_file), text_column)
        found = _split_documents(documents, validation, test)
    for split, path in others.items():
        if path and is_running(path, form):
            whole = [_whole(path, encoding)]
            found[split] = lines(whole) if by_line else whole
        elif path:
            found[split] = _documents(read_rows(path, **form), str(path), text_column)
    return found


def is_running(path, form):
    """Whether a file holds text that goes on from line to line, and no table."""
    return file_kind(path)[0] == ".txt" and form.get("separator") is None


def _whole(path, encoding):
    return "\n".join(row["text"] for row in read_rows(path, encoding=encoding)) + "\n"


def lines(texts):
    """Every line that has any text, without its end."""
    return [line for text in texts for line in text.splitlines() if line.strip()]


def split_running_text(text, validation, test, where) -> dict[str, list[str]]:
    """Consecutive parts of `text`, the last two about these fractions of its length.

    Lines stay whole and in order; the parts joined are the text. UserError if a part is empty.
    """
    ends = np.cumsum([len(line) for line in text.splitlines(keepends=True)])
    starts = np.concatenate([[0], ends])
    first, second = (
        int(starts[np.abs(starts - len(text) * (1 - fraction)).argmin()])
        for fraction in (validation + test, test)
    )
    parts = {"train": text[:first], "val": text[first:second], "test": text[second:]}
    for name, part in parts.items():
        if not part.strip() and {"val": validation, "test": test}.get(name, True):
            raise UserError(f"{where} has too few lines to be split: its {name} part is empty")
    return {name: [part] for name, part in parts.items() if part}


def _split_documents(documents, validation, test):
    """Documents by a hash of their text, so that equal ones stay on one side."""
    found, rest = {}, list(documents)
    for name, fraction in (("test", test), ("val", validation / (1 - test))):
        if fraction:
            kept, held = hold_out(rest, np.zeros(len(rest), int), fraction, name)
            found[name] = [rest[i] for i in held]
            rest = [rest[i] for i in kept]
    return found | {"train": rest}


def _documents(rows, where, column):
    """The texts in `column` of `rows`; the column is guessed by its name if it is None."""
    texts = []
    for number, row in enumerate(rows, start=1):
        column = column or find_text_column(list(row), where)
        texts.append(read_text(row.get(column), column, f"{where}, row {number}"))
    return texts
