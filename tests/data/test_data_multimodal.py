"""Tables of text and numbers: cells, columns, standardising, and the functions of Python."""

import csv
import json
import math

import numpy as np
import pytest

from data.generated import python_docs, python_functions
from data.sets.multimodal import Columns, load_multimodal, read_table
from minisum.columns import Standardiser
from minisum.errors import UserError

COLUMNS = Columns("text", ("a", "b"), "y")


def table(rows, columns=COLUMNS):
    return read_table(rows, "file.csv", columns)


def test_cells_of_all_kinds():
    rows = [
        {"text": "one", "a": "1.5", "b": " 2e3 ", "y": 1},
        {"text": None, "a": "", "b": None, "y": "0"},
        {"text": "three", "a": "NaN", "b": "n/a", "y": True},
        {"text": "no target", "a": 1, "b": 1, "y": ""},
    ]
    read = table(rows)
    assert read.texts == ["one", "", "three"] and read.left_out == 1
    nan = math.nan
    np.testing.assert_array_equal(read.numbers, [[1.5, 2000], [nan, nan], [nan, nan]])
    np.testing.assert_array_equal(read.targets, [1, 0, 1])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "t", "a": "high", "b": 1, "y": 1}, "row 2, column 'a': 'high' is not a number"),
        ({"text": "t", "a": 1, "b": [1], "y": 1}, "row 2, column 'b': .* is not a number"),
        ({"text": "t", "a": 1, "b": "inf", "y": 1}, "row 2, column 'b': 'inf' is too large"),
        ({"text": "t", "a": 1, "b": 10**400, "y": 1}, "row 2, column 'b': 1000"),
        ({"text": "t", "a": 1, "y": 1}, "row 2 has no column 'b'"),
        ({"text": 5, "a": 1, "b": 1, "y": 1}, "row 2: column 'text' holds int"),
    ],
)
def test_a_bad_cell_is_named(row, message):
    with pytest.raises(UserError, match=message):
        table([{"text": "t", "a": 1, "b": 1, "y": 1}, row])


def test_standardised_on_what_is_known():
    nan = math.nan
    numbers = np.array([[1.0, 0.1], [nan, 0.1], [5.0, 0.1]])
    standardise = Standardiser.fit(numbers, "ab")
    assert standardise.flagged and standardise.inputs == 2
    out = standardise(numbers)
    np.testing.assert_allclose(out[:, 0], [[-1, 0], [0, 1], [1, 0]])
    np.testing.assert_array_equal(out[:, 1], [[0, 0]] * 3)  # constant: 0, also for a new value
    np.testing.assert_array_equal(standardise(np.array([[3.0, 9.0]]))[0, 1], [0, 0])
    whole = Standardiser.fit(numbers[[0, 2]], "ab")
    assert not whole.flagged
    np.testing.assert_array_equal(whole(np.array([[nan, 0.1]])), [[[0], [0]]])


def test_a_column_without_values_is_refused():
    with pytest.raises(UserError, match="column 'b' has no value in the training rows"):
        Standardiser.fit(np.array([[1, math.nan], [2, math.nan]]), "ab")
    with pytest.raises(UserError, match="column 'a' holds numbers too large"):
        Standardiser.fit(np.array([[1e200], [-1e200]]), "ab")


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def some_rows(count=60, **fixed):
    rng = np.random.default_rng(1)
    return [
        {"text": f"word{i % 7} number {i}", "a": rng.normal(), "b": i % 5, "y": rng.normal()}
        | fixed
        for i in range(count)
    ]


def test_a_target_that_never_changes_is_refused(tmp_path):
    path = write_csv(tmp_path / "f.csv", some_rows(y=2.5))
    with pytest.raises(UserError, match="every training row has the same 'y', 2.5"):
        load_multimodal(None, path, None, "text", ("a", "b"), "y")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ((None, None, "y"), "--numeric-columns"),
        ((None, ("a",), None), "--target"),
        ((None, ("a", "text"), "y"), "'text' cannot play two parts"),
        ((None, ("a", "z"), "y"), "no column 'z'"),
    ],
)
def test_columns_must_be_named(tmp_path, chosen, message):
    path = write_csv(tmp_path / "f.csv", some_rows())
    with pytest.raises(UserError, match=message):
        load_multimodal(None, path, None, *chosen)


def test_a_cut_file_shares_no_text(tmp_path):
    rows = some_rows() + some_rows()
    data = load_multimodal(None, write_csv(tmp_path / "f.csv", rows), None, None, ("a",), "y")
    train, test = data.splits["train"], data.splits["test"]
    assert len(train) + len(test) == 120 and len(data.splits["val"]) == 0
    assert not set(train.texts) & set(test.texts)
    assert abs(len(test) - 24) <= 2
    again = load_multimodal(None, tmp_path / "f.csv", None, None, ("a",), "y", limit_train=10)
    assert len(again.splits["train"]) == 10 and again.splits["test"].texts == test.texts
    assert again.sha256 != data.sha256


def test_validation_is_held_out_of_the_training_rows(tmp_path):
    path = write_csv(tmp_path / "f.csv", some_rows() + some_rows())
    whole = load_multimodal(None, path, None, None, ("a",), "y")
    data = load_multimodal(None, path, None, None, ("a",), "y", validation=0.25)
    train, val = data.splits["train"], data.splits["val"]
    assert not set(train.texts) & set(val.texts) and len(val) == 24
    assert sorted(train.texts + val.texts) == sorted(whole.splits["train"].texts)
    assert sorted([*train.targets, *val.targets]) == sorted(whole.splits["train"].targets)
    assert data.splits["test"].texts == whole.splits["test"].texts
    assert data.sha256 == whole.sha256


@pytest.mark.parametrize("with_test", [False, True])
def test_rows_left_out_are_counted_once(tmp_path, with_test):
    rows = some_rows() + some_rows(5, y="")
    path = write_csv(tmp_path / "f.csv", rows)
    test = write_csv(tmp_path / "t.csv", rows) if with_test else None
    data = load_multimodal(None, path, test, None, ("a",), "y", validation=0.1)
    assert data.left_out == (10 if with_test else 5)


def test_the_hubs_columns(tmp_path, monkeypatch):
    """civil_comments by its published columns, from MINISUM_DATA; another target on demand."""
    names = ("toxicity", "severe_toxicity", "obscene", "threat", "identity_attack", "insult")
    rng = np.random.default_rng(0)
    folder = tmp_path / "civil_comments"
    folder.mkdir()
    for split in ("train", "test"):
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for i in range(20):
                row = {"text": f"{split} {i}"} | dict(zip(names, rng.random(6), strict=True))
                file.write(json.dumps(row) + "\n")
    monkeypatch.setenv("MINISUM_DATA", str(tmp_path))
    data = load_multimodal("civil_comments")
    assert data.columns.numbers == names[:4] and data.columns.target == "identity_attack"
    assert len(data.splits["train"]) == len(data.splits["test"]) == 20
    other = load_multimodal("civil_comments", numeric_columns=("insult",), target="threat")
    assert other.splits["train"].numbers.shape == (20, 1)


def test_the_functions_of_python():
    rows = list(python_functions.rows())
    assert len(rows) > 1000 and len({row["docstring"] for row in rows}) == len(rows)
    assert all(set(row) == set(rows[0]) and row["log_lines"] >= 0 for row in rows)


def test_the_facts_of_a_signature(tmp_path, monkeypatch):
    source = '''
class A:
    @property
    async def f(self, x: int, /, y=1, *more, z: str = "", **rest) -> int:
        """Says what it does.

        At length.
        """
        def inside():
            """Two words only here, no: five."""
        return 1

def short(a): "too short"
'''
    (tmp_path / "module.py").write_text(source)
    (tmp_path / "broken.py").write_text('def f(: """a b c"""')
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(tmp_path))
    first, second = python_functions.rows()
    numbers = [first[name] for name in python_functions.NUMBERS]
    assert numbers == [4, 2, 1, 2, 3, 1, 1, 1]
    assert math.isclose(first["log_lines"], math.log(4))  # def, def, its docstring, return
    assert second["docstring"].startswith("Two words") and second["depth"] == 2
