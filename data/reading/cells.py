"""Cells of a table as texts and as class labels, and the classes in their order.

A label may be a word or a whole number; inside, every label is a string until the classes are
numbered, so that 1, 1.0, "1" and "1.0" are one class, and so are the ways in which Unicode spells
the same letters, whichever format they came from.
"""

import re
import unicodedata
from collections.abc import Iterable

import numpy as np

from minisum.errors import UserError

SKIP = "; --skip-empty leaves such rows out"


def read_text(value, column, place, allow_empty=True) -> str:
    """The cell if it is text that can be written as UTF-8; `place` names file and row.

    Raises UserError for a missing cell, for one of blanks unless `allow_empty`, for another type
    and for half of a surrogate pair.
    """
    if value is None or (is_empty(value) and not allow_empty):
        raise UserError(f"{place}: column {column!r} is empty{SKIP}")
    if not isinstance(value, str):
        raise UserError(f"{place}: column {column!r} holds {type(value).__name__}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: column {column!r} holds half of a surrogate pair") from error
    return value


def is_empty(cell) -> bool:
    """Whether a cell has nothing in it: missing, NaN or blanks."""
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())


def read_label(value, column, place) -> str:
    """The cell as a label; `place` names file and row. UserError for what cannot be a class."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (bool, int)):
        return str(value)
    if is_empty(value):
        raise UserError(f"{place}: column {column!r} is empty{SKIP}")
    if not isinstance(value, str):
        raise UserError(f"{place}: column {column!r} holds {value!r:.40}, not a class")
    label = unicodedata.normalize("NFC", read_text(value.strip(), column, place))
    return re.sub(r"^([+-]?[0-9]+)\.0+$", r"\1", label)


def class_order(labels: Iterable[str]) -> list[str]:
    """The different labels in the order of their class numbers: by value if all are whole
    numbers, else alphabetical."""
    distinct = sorted(set(labels))
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", label) for label in distinct):
        distinct.sort(key=int)
    return distinct


def number_labels(labels: list[str], order: list[str], where: str) -> np.ndarray:
    """Class numbers (int32) of `labels`. UserError for a label that is not in `order`."""
    numbers = {label: number for number, label in enumerate(order)}
    for label in labels:
        if label not in numbers:
            raise UserError(f"{where} has the label {label!r}, which the training set lacks")
    return np.array([numbers[label] for label in labels], np.int32)
