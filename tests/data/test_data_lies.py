"""Data that lies: times that go back or are missing, numbers that no float holds, links."""

import itertools
import json
import math
import os

import numpy as np
import pytest
import tiny_runs

from data.reading.times import require_order
from data.sets.forecast import Series, Windows, read_series
from minisum.columns import Standardiser
from minisum.errors import UserError

GOOD = {
    "ISO": [f"2024-01-{day:02} 12:00" for day in range(1, 13)],
    "zoned": [f"2024-01-{day:02}T12:00+01:00" for day in range(1, 13)],
    "numbers": [str(100 + 7 * i) for i in range(12)],
    "floats": [0.5 * i for i in range(12)],
}


def rows(times):
    return [{"time": time, "a": i} for i, time in enumerate(times)]


@pytest.mark.parametrize("kind", GOOD)
def test_times_in_order_are_taken(kind):
    series = read_series(rows(GOOD[kind]), "f")
    assert series.times == [str(time) for time in GOOD[kind]]


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("place", range(12))
def test_one_wrong_time_is_refused_wherever_it_is(kind, place):
    """Missing, of another kind, equal to its neighbour, or exchanged with it."""
    right = GOOD[kind]
    neighbour = place + 1 if place < 11 else place - 1
    wrong = [None, "", "  ", "n/a", float("nan")]
    wrong += [time for other, times in GOOD.items() for time in times[:1] if other != kind]
    wrong += [right[neighbour]]
    if kind == "floats":
        wrong.remove(GOOD["numbers"][0])
    elif kind == "numbers":
        wrong.remove(GOOD["floats"][0])
    for time in wrong:
        times = right[:place] + [time] + right[place + 1 :]
        with pytest.raises(UserError, match="row [0-9]+: it"):
            read_series(rows(times), "f")
    swapped = right.copy()
    swapped[place], swapped[neighbour] = right[neighbour], right[place]
    with pytest.raises(UserError, match="does not come after"):
        read_series(rows(swapped), "f")


def test_reversed_and_shuffled_times_are_refused():
    for kind in GOOD:
        for order in ([*range(11, -1, -1)], [0, 2, 1, *range(3, 12)], [11, *range(11)]):
            with pytest.raises(UserError, match="does not come after"):
                require_order([GOOD[kind][i] for i in order], "f")


def test_one_missing_time_does_not_let_the_future_in():
    """The order is checked of all rows, also where one of them has no time."""
    times = GOOD["ISO"][::-1]
    for place in range(12):
        with pytest.raises(UserError):
            read_series(rows(times[:place] + [""] + times[place + 1 :]), "f")


@pytest.mark.parametrize("cell", ["1e151", "-1e200", "1e308", "1e309", "inf", 10**400, "9" * 400])
def test_numbers_beyond_floats_are_refused_by_cell(cell):
    table = [{"time": i, "a": 1.0} for i in range(5)]
    table[3]["a"] = cell
    with pytest.raises(UserError, match="row 4, column 'a'"):
        read_series(table, "f")


@pytest.mark.parametrize("value", [1e17, 1e40, 1e149])
def test_numbers_beyond_float32_are_refused_by_column(value):
    """Only a split that is not trained on holds it: its scale does not show it."""
    values = np.random.default_rng(0).normal(size=(100, 2))
    values[95, 1] = value
    with pytest.raises(UserError, match="column 'b' holds a number"):
        Windows(Series("s", ("a", "b"), values), "standard", 8, 2)
    with pytest.raises(UserError, match="'number 2' holds a number"):
        Standardiser.fit(values[:50], "ab")(values)


@pytest.mark.parametrize("task, column", [("multimodal", "price"), ("multimodal", "size"),
                                          ("forecast", "tide")])  # fmt: skip
@pytest.mark.parametrize("value", ["1e14", "1e149", "-1e120", "1e-320"])
def test_results_are_json_whatever_the_numbers(tmp_path, task, column, value):
    """In the last row, which is tested on or trained on; status 0 or one sentence and 2."""
    pytest.importorskip("safetensors")
    pytest.importorskip("tokenizers")
    data = tiny_runs.corpus(tmp_path, task)
    if task == "forecast":
        lines = data.read_text().splitlines()
        data.write_text("\n".join([*lines[:-1], f"159,{value},0.5"]))
    else:
        table = [json.loads(line) for line in data.read_text().splitlines()]
        for row, one in itertools.product(table[-30:], [column]):
            row[one] = float(value)
        data.write_text("\n".join(json.dumps(row) for row in table))
    out = tmp_path / "run"
    status = tiny_runs.train(task, data, out, "--epochs", 1)
    assert status in (0, 2)
    for path in (*out.glob("*.json"), *out.glob("*.jsonl")):
        for text in (
            path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        ):
            json.loads(text, parse_constant=pytest.fail)
    if status == 0:
        result = json.loads((out / "result.json").read_text())
        assert all(not isinstance(v, float) or math.isfinite(v) for v in result.values())


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_to_a_file_named_by_its_hash_is_read_by_its_own_name(tmp_path):
    pytest.importorskip("safetensors")
    pytest.importorskip("tokenizers")
    data = tiny_runs.corpus(tmp_path, "classifier")
    blob = tmp_path / "5f1e8a0c"
    data.rename(blob)
    data.symlink_to(blob)
    out = tmp_path / "run"
    assert tiny_runs.train("classifier", data, out, "--epochs", 1) == 0
    assert json.loads((out / "config.json").read_text())["data"] == str(data)
    assert tiny_runs.call("classifier", "--resume", "--out", out, "--epochs", 2) == 0
