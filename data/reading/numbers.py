"""Numbers from the cells of a table, and the mean and deviation of its columns."""

import math

import numpy as np

from minisum.errors import UserError

LARGEST = 1e150  # the square of a number is one
LARGEST_SCALED = 1e15  # so that sums of squares are float32 numbers
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
        raise UserError(f"{place}, column {column!r}: {value!r:.40} is not a number.") from None
    except OverflowError:
        number = math.inf
    if abs(number) > LARGEST:
        raise UserError(f"{place}, column {column!r}: {value!r:.40} is too large to be squared.")
    return number


def require_moderate(scaled, columns) -> np.ndarray:
    """`scaled`, standardised numbers (N, C). UserError for one with which float32 overflows."""
    with np.errstate(invalid="ignore"):
        rows, places = np.nonzero(np.abs(scaled) > LARGEST_SCALED)
    if len(rows):
        raise UserError(
            f"Column {columns[places[0]]!r} holds a number {scaled[rows[0], places[0]]:.0e} "
            "deviations of the training rows away from their mean: too large to compute with."
        )
    return scaled


def column_statistics(values, columns) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation, (C,) each, of values (N, C), NaN left out; `columns` are the C names.

    The deviation of a column that never changes is exactly 0. UserError for a column without any
    value and for one whose squares overflow.
    """
    for i in np.flatnonzero(np.isnan(values).all(axis=0)):
        raise UserError(f"Column {columns[i]!r} has no value in the training rows: leave it out.")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    for i in np.flatnonzero(~np.isfinite(deviation)):
        raise UserError(f"Column {columns[i]!r} holds numbers too large to be squared.")
    # The mean of equal numbers is off by rounding, and so are their distances from it.
    constant = deviation <= 1e-12 * np.abs(mean)
    return mean, np.where(constant, 0.0, deviation)
