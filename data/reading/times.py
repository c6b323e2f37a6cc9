"""The times of a table's rows: all there, all of one kind, each after the one before."""

import datetime

from minisum.errors import UserError

# Times that are read besides ISO's.
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_DAYS = ("%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y")
FORMATS = tuple(day + clock for day in _DAYS for clock in _CLOCKS)
KINDS = {"a number": float, "an ISO time": datetime.datetime.fromisoformat}


def in_iso(times) -> list:
    """Times as ISO 8601 writes them if all are in one of FORMATS and in no other, else as they are.

    From the 13th of a month on, the day cannot be taken for the month.
    """
    readings = []
    for form in FORMATS:
        try:
            parsed = [datetime.datetime.strptime(time, form).isoformat(" ") for time in times]
        except (ValueError, TypeError):
            continue
        readings += [parsed] if parsed not in readings else []
    return readings[0] if len(readings) == 1 else times


def require_order(times, where):
    """UserError unless every row has a time of the first one's kind, later than that before it."""
    if not times:
        return
    kind, parsed = _kind(times[0]), []
    for row, time in enumerate(times, start=1):
        if time is None or not str(time).strip():
            raise UserError(f"{where}, row {row}: it has no time; fill it in, or leave the row out")
        if kind is None:
            raise UserError(
                f"{where}, row 1: its time {times[0]} can be read in no way or in two; write times "
                "as numbers or like 2016-07-01 12:00, or rename their column and choose --columns"
            )
        if _kind(time) != kind:
            raise UserError(
                f"{where}, row {row}: its time {time} is not {kind} as {times[0]} in row 1; "
                "write all times alike"
            )
        parsed.append(KINDS[kind](str(time)))
    for row in range(1, len(times)):
        try:
            later = parsed[row] > parsed[row - 1]
        except TypeError:  # one has a time zone, the other none
            raise UserError(f"{where}, row {row + 1}: its time {times[row]} has a time zone or "
                            f"lacks one, unlike {times[row - 1]} before it") from None  # fmt: skip
        if not later:
            raise UserError(
                f"{where}, row {row + 1}: its time {times[row]} does not come after "
                f"{times[row - 1]}; sort the rows by time, each time once"
            )


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


def column_of_times(row) -> str | None:
    """The one column of a row whose cell is a date or a time, None without one or with several."""
    found = [name for name, cell in row.items() if _kind(in_iso([cell])[0]) == "an ISO time"]
    return found[0] if len(found) == 1 else None


def _kind(time):
    for kind, read in KINDS.items():
        try:
            value = read(str(time))
        except ValueError:
            continue
        if value == value:  # no NaN
            return kind
    return None


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
