"""Columns of numbers: cells read, standardised on the training rows, gaps filled."""

import math
import re
from dataclasses import dataclass

import numpy as np

from minisum.errors import UserError

LARGEST = 1e150  # the square of a number is one
LARGEST_SCALED = 1e15  # so that sums of squares are float32 numbers
DECIMAL_COMMA = re.compile(r"\s*[+-]?[0-9]+,[0-9]+\s*")
MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "?")


def read_number(value, column, place) -> float:
    """The cell as a float; NaN if it is missing: None, NaN or one of MISSING in any case.

    `place` names the file and the row. UserError for a cell that is not a finite number.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        comma = ": its decimal comma must be a point" * bool(DECIMAL_COMMA.fullmatch(str(value)))
        where = f"{place}, column {column!r}"
        raise UserError(f"{where}: {value!r:.40} is not a number{comma}") from None
    except OverflowError:
        number = math.inf
    if abs(number) > LARGEST:
        raise UserError(f"{place}, column {column!r}: {value!r:.40} is too large to be squared")
    return number


def require_moderate(scaled, columns):
    """UserError if one of `scaled`, standardised numbers (N, C), lets float32 overflow."""
    with np.errstate(invalid="ignore"):
        rows, places = np.nonzero(np.abs(scaled) > LARGEST_SCALED)
    if len(rows):
        raise UserError(
            f"column {columns[places[0]]!r} holds a number {scaled[rows[0], places[0]]:.0e} "
            "deviations of the training rows away from their mean: too large to compute with"
        )


def column_statistics(values, columns) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation, (C,) each, of values (N, C), NaN left out; `columns` are the C names.

    The deviation of a column that never changes is exactly 0. UserError for a column without any
    value and for one whose squares overflow.
    """
    for i in np.flatnonzero(np.isnan(values).all(axis=0)):
        raise UserError(f"column {columns[i]!r} has no value in the training rows: leave it out")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    for i in np.flatnonzero(~np.isfinite(deviation)):
        raise UserError(f"column {columns[i]!r} holds numbers too large to be squared")
    # The mean of equal numbers is off by rounding, and so are their distances from it.
    constant = deviation <= 1e-12 * np.abs(mean)
    return mean, np.where(constant, 0.0, deviation)


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
        """numbers (N, k), names of the k columns. UserError as of `column_statistics`."""
        mean, deviation = column_statistics(numbers, names)
        return cls(mean.tolist(), deviation.tolist(), bool(np.isnan(numbers).any()))

    @property
    def inputs(self) -> int:
        """Numbers that describe a cell."""
        return 2 if self.flagged else 1

    def __call__(self, numbers) -> np.ndarray:
        """numbers (N, k) with NaN -> (N, k, inputs) float32."""
        deviation = np.array(self.deviation)
        varies = deviation > 0
        scaled = (numbers - self.mean) / np.where(varies, deviation, 1)
        require_moderate(scaled, [f"number {i + 1}" for i in range(len(deviation))])
        missing = np.isnan(numbers)
        described = [np.where(missing | ~varies, 0, scaled)]
        if self.flagged:
            described.append(missing)
        return np.stack(described, axis=2).astype(np.float32)


def fill_gaps(scaled):
    """NaN replaced by the last number before it in the column, 0 (the mean) before the first."""
    places = np.where(np.isnan(scaled), 0, np.arange(1, len(scaled) + 1)[:, None])
    latest = np.maximum.accumulate(places, axis=0)
    padded = np.concatenate([np.zeros((1, scaled.shape[1])), scaled])
    return np.take_along_axis(padded, latest, axis=0)
