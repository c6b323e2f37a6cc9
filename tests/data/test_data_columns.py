"""Which column holds the text and which the class; what a cell may not hold."""

import pytest
from labelled_files import without_hub, write_csv

from data.reading.cells import class_order
from data.reading.columns import read_labelled
from data.sets.classification import load_classification
from minisum.errors import UserError


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    return without_hub(monkeypatch)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["label", "text"], ("text", "label")),
        (["Review", "Class"], ("Review", "Class")),
        (["id", "text", "label"], ("text", "label")),
        (["text", "body", "label", "topic"], ("text", "label")),
        (["sentence", "x"], ("sentence", "x")),
        (["x", "category"], ("x", "category")),
        (["x", "y"], ("y", "x")),
    ],
)
def test_columns_are_guessed_when_obvious(columns, expected):
    rows = [dict(zip(columns, (f"a{i % 2}", f"b{i}"), strict=False)) for i in range(9)]
    rows = [{c: row.get(c, "z") for c in columns} for row in rows]
    data = read_labelled(rows, "file")
    assert (data.text_column, data.label_column) == expected
    assert data.texts == [row[expected[0]] for row in rows]
    assert data.labels == [row[expected[1]] for row in rows]


@pytest.mark.parametrize(
    "columns", [["a", "b", "c"], ["body", "review", "label"], ["text", "id", "x"]]
)
def test_ambiguous_columns_are_listed(columns):
    with pytest.raises(UserError, match="not obvious") as caught:
        read_labelled([dict.fromkeys(columns, "1")], "file")
    assert all(repr(column) in str(caught.value) for column in columns)


def test_another_separator_makes_one_column():
    with pytest.raises(UserError, match="only the column 'text;label'; a text and a label"):
        read_labelled([{"text;label": "hello;a"}], "file")


def test_named_columns():
    rows = [{"body": "a", "review": "b", "topic": "c", "label": "d"}]
    data = read_labelled(rows, "file", text_column="review", label_column="topic")
    assert (data.texts, data.labels) == (["b"], ["c"])
    with pytest.raises(UserError, match="no column 'missing'; it has 'body', 'review'"):
        read_labelled(rows, "file", text_column="missing")
    with pytest.raises(UserError, match="cannot be both"):
        read_labelled(rows, "file", text_column="body", label_column="body")
    assert read_labelled([{"label": "words", "x": 1}], "f", text_column="label").labels == ["1"]


def test_a_file_without_header_is_noticed(tmp_path):
    rows = [f"{i % 2},some words {i}" for i in range(20)]
    with pytest.raises(UserError, match="no header"):
        load_classification(data_file=write_csv(tmp_path, rows[1:], header=rows[0]))


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"text": "", "label": 1}, "'text' is empty"),
        ({"text": " \n", "label": 1}, "'text' is empty"),
        ({"label": 1}, "'text' is empty"),
        ({"text": 5, "label": 1}, "holds int, not text"),
        ({"text": "a", "label": None}, "'label' is empty"),
        ({"text": "a", "label": "  "}, "'label' is empty"),
        ({"text": "a", "label": float("nan")}, "'label' is empty"),
        ({"text": "a"}, "'label' is empty"),
        ({"text": "a", "label": [1, 2]}, "not a class"),
        ({"text": "a", "label": 0.5}, "not a class"),
        ({"text": "a", "label": float("inf")}, "not a class"),
        ({"text": "a \ud800", "label": 1}, "surrogate"),
        ({"text": "a", "label": "\ud800"}, "surrogate"),
    ],
)
def test_bad_cells_are_named(row, part):
    with pytest.raises(UserError, match=part) as caught:
        read_labelled([{"text": "fine", "label": 0}, row], "a.jsonl")
    assert "a.jsonl, row 2" in str(caught.value)


def test_class_order():
    assert class_order(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert class_order(["b", "a", "10", "9"]) == ["10", "9", "a", "b"]
