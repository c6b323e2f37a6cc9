"""Trained models of tables: a number from a text and numbers, and the future of a series."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minisum.columns import Standardiser, fill_gaps, read_number, require_moderate
from minisum.errors import UserError
from minisum.params import Params
from minisum.runs.base import Run
from minisum.text.tokenizer import TextReader


class RegressorRun(Run):
    """A trained regression from a text and some numbers."""

    def __init__(
        self, model: Any, params: Params, tokenizer: Any, spec: dict[str, Any], **settings: Any
    ):
        super().__init__(model, params, tokenizer, spec, **settings)
        self.reader = TextReader(tokenizer, **spec["text"])
        self.standardise = Standardiser(**spec["standardiser"])

    @property
    def columns(self) -> dict[str, Any]:
        """The names of the columns: text, numbers (a list) and target."""
        return self.spec["columns"]

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """(N,): the target of each row, a dict with the run's text and numeric columns."""
        numbers = read_numbers(rows, self.columns["numbers"])
        texts = [row[self.columns["text"]] or "" for row in rows]
        return self.predict_columns(texts, numbers)

    def predict_columns(self, texts: Sequence[str], numbers: np.ndarray) -> np.ndarray:
        """(N,), from N texts and numbers (N, k), NaN where one is missing."""
        encoded, described = self.reader.encode(texts), self.standardise(numbers)
        found = []
        for start in range(0, len(texts), self.batch_size):
            rows = np.arange(start, min(start + self.batch_size, len(texts)))
            batch = self.reader.batch(encoded.take(rows))
            found.append(self.outputs(batch | {"numbers": described[rows]}))
        return np.concatenate([np.zeros(0), *found]) * self.spec["deviation"] + self.spec["mean"]


class ForecasterRun(Run):
    """A trained forecaster of a series."""

    @property
    def columns(self) -> list[str]:
        """The names of the columns that are forecast, in their order."""
        return list(self.spec["columns"])

    @property
    def window(self) -> int:
        """How many of the latest rows are read."""
        return self.model.window

    def forecast(self, rows: Any) -> np.ndarray:
        """(horizon, C): what follows `rows`, which are dicts with the run's columns, or (N, C).

        Gaps (None, NaN, an empty cell) are filled with the last value before them. UserError for
        fewer rows than a window.
        """
        if len(rows) < self.window:
            raise UserError(f"{len(rows)} rows are too few: the model forecasts from {self.window}")
        if isinstance(rows[0], Mapping):
            rows = read_numbers(rows, self.columns)
        values = np.asarray(rows, np.float64)
        mean, deviation = np.array(self.spec["mean"]), np.array(self.spec["deviation"])
        if values.shape[1:] != mean.shape:
            raise UserError(f"rows of {len(mean)} columns are needed: {', '.join(self.columns)}")
        scaled = (values - mean) / deviation
        require_moderate(scaled, self.columns)
        window = fill_gaps(scaled)[-self.window :]
        return self.outputs({"windows": window[None].astype(np.float32)})[0] * deviation + mean


def read_numbers(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> np.ndarray:
    """(N, k) float64 of these columns, NaN where a cell is empty. UserError names a bad cell."""
    found = np.empty((len(rows), len(columns)))
    for i, row in enumerate(rows):
        for k, column in enumerate(columns):
            if column not in row:
                raise UserError(f"row {i + 1} has no column {column!r}")
            found[i, k] = read_number(row[column], column, f"row {i + 1}")
    return found
