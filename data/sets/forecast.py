"""Multivariate series from a file, by name or generated: splits in time, scale and windows.

The future must not leak into the past. The scaler is fitted on the training rows alone. A window of
validation or test may look back past the start of its split into the rows before it, as a
forecaster in service would; its targets never leave the split. Gaps are filled from the past only.
"""

from dataclasses import dataclass, replace

import numpy as np

from data.fingerprint import data_sha256
from data.generated import hourly
from data.reading.columns import guess_column, listed, require_columns
from data.reading.rows import read_rows
from data.reading.times import column_of_times, in_iso, require_order
from data.sets import registry
from minisum.columns import column_statistics, fill_gaps, read_number, require_moderate
from minisum.errors import UserError

NAMES = registry.names("forecast")
DEFAULT = NAMES[0]
SPLITS = ("standard", "published")
TIME_NAMES = ("date", "time", "datetime", "timestamp", "ds")
MONTH = 30 * 24  # hours, as the field counts them


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
        return data_sha256([repr(self.columns).encode(), self.values])


def load_series(dataset=None, data_file=None, columns=None, time_column=None, **form) -> Series:
    """The series called `dataset` (one of NAMES), or the one in `data_file`, a row a time step.

    columns: names of those to forecast, in order; by default all but the time. time_column: by
    default the one called like a time. form: how files are written, see `read_rows`. Raises
    UserError for what is not available or cannot be read, and for a cell that is not a number, by
    row and column.
    """
    if data_file is not None:
        return read_series(read_rows(data_file, **form), str(data_file), columns, time_column)
    name = dataset or DEFAULT
    if name == DEFAULT:
        series = Series(name, *hourly.load(), "date")
    else:
        entry, sources = registry.open_set("forecast", name, None, None, None)
        series = read_series(sources["train"][0], name, None, entry.time or time_column)
    if columns is None:
        return series
    require_columns(series.columns, columns, name)
    kept = [series.columns.index(column) for column in columns]
    return replace(series, columns=tuple(columns), values=series.values[:, kept])


def read_series(rows, where, columns=None, time_column=None) -> Series:
    """The series in `rows`; `where` names the source in errors, which count rows from 1."""
    values, times = [], []
    names = None
    for number, row in enumerate(rows, start=1):
        if names is None:
            named = time_column or guess_column(list(row), TIME_NAMES)
            time_column = named or column_of_times(row)
            names = tuple(columns or (name for name in row if name != time_column))
            require_columns(row, [*names, *([time_column] if time_column else [])], where)
        place = f"{where}, row {number}"
        values.append([read_number(row.get(name), name, place) for name in names])
        if time_column:
            times.append(row.get(time_column))
    if not values:
        raise UserError(f"{where} has no rows")
    if not names:
        raise UserError(f"{where} has no column of numbers beside {time_column!r}")
    if len(set(names)) < len(names):
        raise UserError(f"{where}: a column is named twice among {listed(names)}")
    times = in_iso(times)
    require_order(times, where)
    times = [str(time) for time in times] or None
    return Series(where, names, np.array(values), times, time_column)


def split_ends(series, split="standard") -> tuple[int, int, int]:
    """The rows at which training, validation and test end.

    "standard": what the field uses, 12, 4 and 4 months of 30 days for the ETT series and 70, 10 and
    20 % for any other; "published": 60, 20 and 20 % of all rows.
    """
    steps = len(series.values)
    if split == "published":
        return int(steps * 0.6), int(steps * 0.8), steps
    if is_cut_by_months(series.name):
        month = MONTH * (4 if series.name.startswith("ETTm") else 1)
        if steps >= 20 * month:
            return 12 * month, 16 * month, 20 * month
    return int(steps * 0.7), steps - int(steps * 0.2), steps


def is_cut_by_months(name) -> bool:
    return name.startswith("ETT") and name in NAMES


class Windows:
    """Every window of a series with the horizon that follows it, by split, standardised.

    window and horizon in time steps. separate: no window looks back past the start of its split. A
    gap is filled with the last value before it (with the training mean, if there is none); a target
    that is a gap stays NaN. The limits keep that many windows: of training drawn by the seed, of
    test evenly spaced. Raises UserError for a column without a value in the training rows and for
    a series that is too short.
    """

    def __init__(
        self, series, split, window, horizon, separate=False, limit_train=None, limit_test=None,
        seed=0,
    ):  # fmt: skip
        self.series, self.window, self.horizon = series, window, horizon
        self.ends = split_ends(series, split)
        mean, deviation = column_statistics(series.values[: self.ends[0]], series.columns)
        self.mean, self.deviation = mean, np.where(deviation == 0, 1.0, deviation)
        scaled = (series.values - self.mean) / self.deviation
        require_moderate(scaled, series.columns)
        self.targets = scaled.astype(np.float32)
        self.inputs = fill_gaps(scaled).astype(np.float32)
        self.firsts = {}  # where the targets of each window begin
        begin = 0
        known = np.concatenate([[0], np.cumsum(~np.isnan(self.targets).all(axis=1))])
        for name, end in zip(("train", "val", "test"), self.ends, strict=True):
            earliest = begin + window if separate else max(begin, window)
            firsts = np.arange(earliest, end - horizon + 1)
            # A window without any known target teaches nothing.
            self.firsts[name] = firsts[known[firsts + horizon] > known[firsts]]
            if not len(self.firsts[name]):
                raise UserError(
                    f"{series.name} is too short: its {name} split has {end - begin} rows, and "
                    f"a window of {window} with a horizon of {horizon} does not fit"
                    + (" (rows before the split count for the window)" if begin else "")
                )
            begin = end
        train, test = len(self.firsts["train"]), len(self.firsts["test"])
        drawn = np.random.default_rng([seed, 0]).permutation(train)[: limit_train or train]
        self.firsts["train"] = self.firsts["train"][np.sort(drawn)]
        if limit_test and limit_test < test:
            spaced = np.linspace(0, test - 1, limit_test).astype(int)
            self.firsts["test"] = self.firsts["test"][spaced]

    def batch(self, split, rows):
        """windows (B, window, C) and targets (B, horizon, C), float32."""
        firsts = self.firsts[split][rows][:, None]
        return {
            "windows": self.inputs[firsts + np.arange(-self.window, 0)],
            "targets": self.targets[firsts + np.arange(self.horizon)],
        }
