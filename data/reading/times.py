"""The times of a table's rows: all there, all of one kind, each after the one before."""

import datetime

from minisum.errors import UserError

KINDS = {"a number": float, "an ISO time": datetime.datetime.fromisoformat}


def require_order(times, where) -> bool:
    """UserError unless every row has a time of the first one's kind, later than that before it.

    Times that are neither numbers nor ISO 8601 cannot be compared: False, and they are taken to be
    in order.
    """
    if not times:
        return True
    kind, parsed = _kind(times[0]), []
    for row, time in enumerate(times, start=1):
        if time is None or not str(time).strip():
            raise UserError(
                f"{where}, row {row}: it has no time; fill it in, or leave the row out."
            )
        if _kind(time) != kind:
            raise UserError(
                f"{where}, row {row}: its time {time} is not {kind or 'of the kind'} "
                f"{'as' if kind else 'of'} {times[0]} in row 1; write all times alike."
            )
        parsed.append(KINDS[kind](str(time)) if kind else None)
    for row in range(1, len(times)) if kind else ():
        try:
            later = parsed[row] > parsed[row - 1]
        except TypeError:  # one has a time zone, the other none
            raise UserError(f"{where}, row {row + 1}: its time {times[row]} has a time zone or "
                            f"lacks one, unlike {times[row - 1]} before it.") from None  # fmt: skip
        if not later:
            raise UserError(
                f"{where}, row {row + 1}: its time {times[row]} does not come after "
                f"{times[row - 1]}; sort the rows by time, each time once."
            )
    return kind is not None


def steps_in_a_day(times) -> int | None:
    """How many rows make a day, None if the times do not tell (no ISO, or days apart)."""
    step = time_step(times)
    if step is None or not datetime.timedelta(0) < step < datetime.timedelta(days=1):
        return None
    return round(datetime.timedelta(days=1) / step)


def time_step(times) -> datetime.timedelta | None:
    """The median distance of the first rows' times, None if they are not ISO times."""
    try:
        parsed = [datetime.datetime.fromisoformat(time) for time in (times or [])[:100]]
        gaps = sorted(b - a for a, b in zip(parsed, parsed[1:], strict=False))
    except (ValueError, TypeError):
        return None
    return gaps[len(gaps) // 2] if gaps else None


def _kind(time):
    for kind, read in KINDS.items():
        try:
            value = read(str(time))
        except ValueError:
            continue
        if value == value:  # no NaN
            return kind
    return None
