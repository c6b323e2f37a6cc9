"""Multivariate series: a file, a published one, or a generated one; its splits, scale and windows.

The future must not leak into the past. The scaler is fitted on the training rows alone. A window of
validation or test may look back over the border into the rows before it, as a forecaster in
service would; its targets never leave their own split. Gaps are filled from the past only.
"""

import datetime
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.reading.cells import read_number
from data.reading.rows import SUFFIXES, read_rows
from data.reading.sources import Source, read_split
from minisum.errors import UserError

DEFAULT = "generated"
SPLITS = ("standard", "published")
TIME_NAMES = ("date", "time", "datetime", "timestamp", "ds")
MONTH = 30 * 24  # hours, as the field counts them
PUBLISHED = {
    # The bare csv files; the hub's copy under the authors' name needs a loading script.
    name: Source(name, f"pkr7098/{name.lower()}")
    for name in ("ETTh1", "ETTh2", "ETTm1", "ETTm2")
}
NAMES = (DEFAULT, *PUBLISHED)


@dataclass(frozen=True)
class Series:
    """N time steps of C columns: values (N, C) float64, NaN where nothing was measured.

    times: N strings in ascending order, or None for a series without a time column.
    """

    name: str
    columns: tuple[str, ...]
    values: np.ndarray
    times: list[str] | None = None
    time_column: str | None = None

    @property
    def sha256(self) -> str:
        """Fingerprint of the columns' names and values; equal across machines."""
        digest = hashlib.sha256(repr(self.columns).encode())
        clean = np.where(np.isnan(self.values), np.nan, self.values).astype("<f8")
        digest.update(np.ascontiguousarray(clean).tobytes())
        return digest.hexdigest()


def load_series(dataset=None, data_file=None, columns=None, time_column=None) -> Series:
    """The series called `dataset` (one of NAMES), or the one in `data_file`, a row a time step.

    columns: names of those to forecast, in order; by default all but the time. time_column: by
    default the one called like a time. Raises UserError for what cannot be had or read, and for
    a cell that is no number, by row and column.
    """
    if data_file is not None:
        return read_series(read_rows(data_file), str(data_file), columns, time_column)
    name = dataset or DEFAULT
    if name == DEFAULT:
        series = generate()
    elif name in PUBLISHED:
        series = read_series(_published_rows(PUBLISHED[name]), name, None, "date")
    else:
        raise UserError(f"There is no series {name!r}; known are {', '.join(NAMES)}.")
    return series if columns is None else _choose(series, columns)


def read_series(rows, where, columns=None, time_column=None) -> Series:
    """The series in `rows`; `where` names the source in errors, which count rows from 1."""
    values, times = [], []
    names = None
    for number, row in enumerate(rows, start=1):
        if names is None:
            time_column = time_column or _time_column(row)
            names = tuple(columns or (name for name in row if name != time_column))
            _require(row, [*names, *([time_column] if time_column else [])], where)
        place = f"{where}, row {number}"
        values.append([read_number(row.get(name), name, place) for name in names])
        if time_column:
            times.append(str(row.get(time_column)))
    if not values:
        raise UserError(f"{where} has no rows.")
    if not names:
        raise UserError(f"{where} has no column of numbers beside {time_column!r}.")
    if len(set(names)) < len(names):
        listed = ", ".join(repr(name) for name in names)
        raise UserError(f"{where}: a column is named twice among {listed}.")
    if time_column:
        _require_order(times, where)
    return Series(where, names, np.array(values), times or None, time_column)


def generate(steps=5000) -> Series:
    """Hourly values of known structure: what can be learned and what cannot is decided here.

    With t in hours, day = 2πt/24, week = 2πt/168 and independent standard normal noise:
        load     10 + 0.0004 t + 3 sin(day) + sin(2 day) + 2 sin(week) + 0.8 a_t
        heat     20 - 0.0006 t + 0.7 (load_{t-6} - 10) + 2 cos(week) + 0.5 noise     coupled to load
        sales     5 + (2 + cos(week)) max(0, sin(day + 1)) + 0.4 noise     a season that swells
        drift    a random walk with steps of 0.1 noise: nothing beats its last value
    and a_t = 0.9 a_{t-1} + 0.44 noise, which is known for some hours ahead and no further.
    """
    rng = np.random.default_rng(20240501)
    t = np.arange(-6, steps, dtype=np.float64)
    day, week = 2 * np.pi * t / 24, 2 * np.pi * t / 168
    noise = rng.normal(size=(4, len(t)))
    a = np.zeros(len(t))
    for i in range(1, len(t)):
        a[i] = 0.9 * a[i - 1] + 0.44 * noise[0, i]
    load = 10 + 0.0004 * t + 3 * np.sin(day) + np.sin(2 * day) + 2 * np.sin(week) + 0.8 * a
    heat = 20 - 0.0006 * t[6:] + 0.7 * (load[:-6] - 10) + 2 * np.cos(week[6:])
    heat = heat + 0.5 * noise[1, 6:]
    sales = 5 + (2 + np.cos(week)) * np.maximum(0, np.sin(day + 1)) + 0.4 * noise[2]
    drift = np.cumsum(0.1 * noise[3])
    start = datetime.datetime(2024, 1, 1)
    times = [(start + datetime.timedelta(hours=i)).isoformat(" ") for i in range(steps)]
    values = np.stack([load[6:], heat, sales[6:], drift[6:]], axis=1)
    return Series(DEFAULT, ("load", "heat", "sales", "drift"), values, times, "date")


def borders(series, split="standard") -> tuple[int, int, int]:
    """Where training, validation and test end, in rows.

    "standard": what the field uses, 12, 4 and 4 months of 30 days for the ETT series and 70, 10 and
    20 % for any other; "published": 60, 20 and 20 % of all rows.
    """
    steps = len(series.values)
    if split == "published":
        return int(steps * 0.6), int(steps * 0.8), steps
    if series.name in PUBLISHED:
        month = MONTH * (4 if series.name.startswith("ETTm") else 1)
        if steps >= 20 * month:
            return 12 * month, 16 * month, 20 * month
    return int(steps * 0.7), steps - int(steps * 0.2), steps


class Windows:
    """Every window of a series with the horizon that follows it, by split, standardised.

    window and horizon in time steps. separate: no window looks back over a border. A gap is filled
    with the last value before it (with the training mean, if there is none); a target that is a
    gap stays NaN. Raises UserError for a column without a value in the training rows and for a
    series that is too short.
    """

    def __init__(self, series, split, window, horizon, separate=False):
        self.series, self.window, self.horizon = series, window, horizon
        self.borders = borders(series, split)
        self.mean, self.deviation = fit_scaler(series.values[: self.borders[0]], series.columns)
        scaled = (series.values - self.mean) / self.deviation
        self.targets = scaled.astype(np.float32)
        self.inputs = fill_gaps(scaled).astype(np.float32)
        self.firsts = {}  # where the targets of each window begin
        begin = 0
        for name, end in zip(("train", "val", "test"), self.borders, strict=True):
            earliest = begin + window if separate else max(begin, window)
            firsts = np.arange(earliest, end - horizon + 1)
            # A window without any known target has nothing to say.
            known = np.concatenate([[0], np.cumsum(~np.isnan(self.targets).all(axis=1))])
            self.firsts[name] = firsts[known[firsts + horizon] > known[firsts]]
            if not len(self.firsts[name]):
                raise UserError(
                    f"{series.name} is too short: its {name} split has {end - begin} rows, and "
                    f"a window of {window} with a horizon of {horizon} does not fit"
                    + (" (rows before the split count for the window)" if begin else "")
                )
            begin = end

    def keep(self, split, rows):
        """Forget all windows of a split but those in `rows`."""
        self.firsts[split] = self.firsts[split][rows]

    def batch(self, split, rows):
        """windows (B, window, C) and targets (B, horizon, C), float32."""
        firsts = self.firsts[split][rows][:, None]
        return {
            "windows": self.inputs[firsts + np.arange(-self.window, 0)],
            "targets": self.targets[firsts + np.arange(self.horizon)],
        }


def fit_scaler(values, columns):
    """(mean, deviation) of each column of values (N, C); a column that never changes has 1."""
    for i in np.flatnonzero(np.isnan(values).all(axis=0)):
        raise UserError(f"Column {columns[i]!r} has no value in the training rows: leave it out.")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    for i in np.flatnonzero(~np.isfinite(deviation)):
        raise UserError(f"Column {columns[i]!r} holds numbers too large to be squared.")
    constant = deviation <= 1e-12 * np.abs(mean)
    return mean, np.where(constant, 1.0, deviation)


def fill_gaps(scaled):
    """NaN replaced by the last number before it in the column, 0 (the mean) before the first."""
    places = np.where(np.isnan(scaled), 0, np.arange(1, len(scaled) + 1)[:, None])
    latest = np.maximum.accumulate(places, axis=0)
    padded = np.concatenate([np.zeros((1, scaled.shape[1])), scaled])
    return np.take_along_axis(padded, latest, axis=0)


def steps_in_a_day(times) -> int | None:
    """How many rows make a day, None if the times do not tell (no ISO, or days apart)."""
    step = time_step(times)
    if step is None or not datetime.timedelta(0) < step < datetime.timedelta(days=1):
        return None
    return round(datetime.timedelta(days=1) / step)


def time_step(times) -> datetime.timedelta | None:
    """The median distance of the first rows' times, None if they are no ISO times."""
    try:
        parsed = [datetime.datetime.fromisoformat(time) for time in (times or [])[:100]]
        gaps = sorted(b - a for a, b in zip(parsed, parsed[1:], strict=False))
    except (ValueError, TypeError):
        return None
    return gaps[len(gaps) // 2] if gaps else None


def _published_rows(source):
    root = os.environ.get("MINISUM_DATA")
    for suffix in SUFFIXES if root else ():
        for ending in ("", ".gz"):
            path = Path(root) / source.name / f"{source.name}{suffix}{ending}"
            if path.is_file():
                return read_rows(path)
    return read_split(source, "train")


def _choose(series, columns):
    _require(series.columns, columns, series.name)
    kept = [series.columns.index(name) for name in columns]
    return Series(
        series.name, tuple(columns), series.values[:, kept], series.times, series.time_column
    )


def _time_column(row):
    found = [name for name in row if name.strip().lower() in TIME_NAMES]
    return found[0] if len(found) == 1 else None


def _require(has, names, where):
    for name in names:
        if name not in has:
            listed = ", ".join(repr(column) for column in has)
            raise UserError(f"{where} has no column {name!r}; it has {listed}.")


def _require_order(times, where):
    """Refuse times that go back. Those that are no ISO times are taken to be in order."""
    try:
        parsed = [datetime.datetime.fromisoformat(time) for time in times]
        ascending = [a < b for a, b in zip(parsed, parsed[1:], strict=False)]
    except (ValueError, TypeError):
        return
    if not all(ascending):
        row = ascending.index(False) + 1
        raise UserError(
            f"{where}, row {row + 1}: its time {times[row]} does not come after "
            f"{times[row - 1]}; sort the rows by time, each time once."
        )
