"""The times of a series: read in several forms, in order, and with the step from row to row."""

import datetime
import math
from functools import partial
from itertools import takewhile

from minisum.errors import UserError

# Times that are read besides ISO's. Where day and month can be taken for each other, none is.
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
TIME_FORMATS = tuple(day + clock for day in ("%Y/%m/%d", "%d.%m.%Y") for clock in _CLOCKS)


def steps_in_a_day(times) -> int | None:
    """How many rows make a day, None if the times do not tell (no ISO, or days apart)."""
    step = time_step(times)
    if step is None or not datetime.timedelta(0) < step < datetime.timedelta(days=1):
        return None
    return round(datetime.timedelta(days=1) / step)


def time_step(times) -> datetime.timedelta | None:
    """The median distance of the first rows' times, None if they are not ISO times."""
    gaps = sorted(_gaps((times or [])[:100]))
    return gaps[len(gaps) // 2] if gaps else None


def iso_times(times, column, where) -> list[str]:
    """Times as ISO writes them; they may be in ISO's or in one of TIME_FORMATS, all in the same.

    Numbers count steps and stay as they are. UserError names the first row that is none of these.
    """
    understood = 0
    for read in (_iso, *(partial(_in_format, form) for form in TIME_FORMATS), _counted):
        found = list(takewhile(lambda time: time is not None, map(read, times)))
        if len(found) == len(times):
            return found
        understood = max(understood, len(found))
    raise UserError(
        f"{where}, row {understood + 1}, column {column!r}: the time {times[understood]!r:.40} is "
        "not understood; write it as 2016-07-01 00:00:00."
    )


def _iso(time):
    try:
        datetime.datetime.fromisoformat(time)
        return time
    except ValueError:
        return None


def _in_format(form, time):
    try:
        return datetime.datetime.strptime(time, form).isoformat(" ")
    except ValueError:
        return None


def _counted(time):
    try:
        return time if math.isfinite(float(time)) else None
    except ValueError:
        return None


def require_order(times, where):
    """Refuse times that go back. Numbers are taken to be in order."""
    for row, gap in enumerate(_gaps(times), start=1):
        if gap <= datetime.timedelta(0):
            raise UserError(
                f"{where}, row {row + 1}: its time {times[row]} does not come after "
                f"{times[row - 1]}; sort the rows by time, each time once."
            )


def _gaps(times):
    """The time from each row to the next; empty if the times are not ISO times."""
    try:
        parsed = [datetime.datetime.fromisoformat(time) for time in times]
        return [b - a for a, b in zip(parsed, parsed[1:], strict=False)]
    except (ValueError, TypeError):
        return []


def times_ahead(times, count):
    """The next `count` times after the last one, or 1, 2, ... if they have no regular step."""
    step = time_step(times[-100:] if times else None)
    if step is None:
        return range(1, count + 1)
    last = datetime.datetime.fromisoformat(times[-1])
    try:
        return [(last + step * (i + 1)).isoformat(" ") for i in range(count)]
    except OverflowError:  # past the year 9999
        return range(1, count + 1)
