"""Numbers as they stand in the cells of a table, whatever the file's format made of them."""

import math

from minisum.errors import UserError

MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "?")


def read_number(value, column, place) -> float:
    """The cell as a float; NaN if it is missing: None, NaN or one of MISSING in any case.

    `place` names file and row for the UserError about a cell that is no finite number.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{place}, column {column!r}: {value!r:.40} is not a number.") from None
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise UserError(f"{place}, column {column!r}: infinity is not a usable number.")
    return number
