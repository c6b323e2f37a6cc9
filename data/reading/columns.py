"""Columns by name or by guess, and rows with named columns to texts and class labels."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from data.reading.cells import is_empty, read_label, read_text
from minisum.errors import UserError, did_you_mean

TEXT_NAMES = (
    "text", "content", "sentence", "review", "document", "body", "message", "comment",
    "utterance", "tweet", "headline",
)  # fmt: skip
LABEL_NAMES = (
    "label", "class", "category", "target", "topic", "labels", "class_name", "intent", "sentiment",
    "polarity", "rating", "stars",
)  # fmt: skip


@dataclass
class Labelled:
    """Texts, their labels as strings, and readable names for the labels where a column has them."""

    text_column: str
    label_column: str
    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    left_out: int = 0  # rows


def read_labelled(
    rows: Iterable[dict], where: str, text_column=None, label_column=None, allow_empty=False,
    skip_empty=False,
) -> Labelled:  # fmt: skip
    """Texts and labels of `rows`; columns that are not named are guessed when obvious.

    `where` names the source in errors, which count rows from 1. `allow_empty` admits empty
    texts, which published sets contain; `skip_empty` leaves out rows without a text or a label. A
    column called like the label with _text added names
    the classes. Raises UserError for columns that are missing or not obvious, and for a cell that
    is empty or of the wrong kind.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{where} has no rows")
    columns = list(first)
    if len(columns) == 1:
        raise UserError(
            f"{where} has only the column {listed(columns)}; a text and a label are needed"
        )
    rows = itertools.chain([first], rows)
    chosen = _by_name(columns, where, text_column, label_column)
    if chosen is None:
        rows = list(rows)
        chosen = _by_distinct_values(columns, rows, where)
    data = Labelled(*chosen)
    name_column = f"{data.label_column}_text"
    for number, row in enumerate(rows, start=1):
        place = f"{where}, row {number}"
        if skip_empty and any(
            map(is_empty, (row.get(data.text_column), row.get(data.label_column)))
        ):
            data.left_out += 1
            continue
        text = read_text(row.get(data.text_column), data.text_column, place, allow_empty)
        data.texts.append(text)
        label = read_label(row.get(data.label_column), data.label_column, place)
        data.labels.append(label)
        if name_column in row:
            name = read_label(row[name_column], name_column, place)
            if data.names.setdefault(label, name) != name:
                raise UserError(
                    f"{place}: label {label} is named {name!r} here "
                    f"and {data.names[label]!r} before"
                )
    return data


def require_columns(has, names, where) -> None:
    """UserError unless every one of `names` is among the columns that `has` lists."""
    for name in names:
        if name not in has:
            has = f"{listed(has)}{did_you_mean(name, has)}"
            raise UserError(f"{where} has no column {name!r}; it has {has}")


def guess_column(columns, names, exclude=None) -> str | None:
    """The column that is called like one of `names`, in any case; None if that is not obvious.

    The first of `names` wins over its synonyms; two synonyms are a question for the user.
    """
    found = [c for c in columns if c.strip().lower() in names and c != exclude]
    plain = [c for c in found if c.strip().lower() == names[0]]
    candidates = plain or found
    return candidates[0] if len(candidates) == 1 else None


def find_text_column(columns, where) -> str:
    """The text column among `columns`. UserError if which one is not obvious."""
    found = guess_column(columns, TEXT_NAMES)
    if found is None:
        raise _not_obvious(columns, where, "text")
    return found


def listed(columns) -> str:
    """The names of columns, for an error message."""
    columns = list(columns)
    more = f" and {len(columns) - 20:,} more" if len(columns) > 20 else ""
    return ", ".join(repr(column)[:80] for column in columns[:20]) + more


def _by_name(columns, where, text_column, label_column):
    """The pair of columns as given or as their names tell, None where only values could tell."""
    require_columns(columns, [c for c in (text_column, label_column) if c is not None], where)
    if text_column is not None and text_column == label_column:
        raise UserError(f"column {text_column!r} cannot be both the text and the label")
    text = text_column or guess_column(columns, TEXT_NAMES, exclude=label_column)
    label = label_column or guess_column(columns, LABEL_NAMES, exclude=text_column)
    if len(columns) == 2:
        text = text or next((c for c in columns if label and c != label), None)
        label = label or next((c for c in columns if text and c != text), None)
    if text and label:
        return text, label
    if len(columns) == 2:
        return None
    raise _not_obvious(columns, where, "label" if text else "text")


def _not_obvious(columns, where, part):
    return UserError(
        f"{where} has the columns {listed(columns)}; which one is the {part} is not obvious: "
        f"name it with --{part}-column"
    )


def _by_distinct_values(columns, rows, where):
    counts = [len({str(row.get(column)) for row in rows}) for column in columns]
    few, many = np.argsort(counts, kind="stable")
    if counts[few] * 2 > counts[many]:
        raise UserError(
            f"{where} has the columns {listed(columns)}; which one is the text and which the "
            f"label is not obvious: name them with --text-column and --label-column"
        )
    if any(str(row.get(columns[few])) == columns[few] for row in rows):
        raise UserError(f"{where} has no header: its first row looks like all the others")
    return columns[many], columns[few]
