"""Documents for language models: their column, their limits, and text that cannot be written."""

import pytest
from labelled_files import write_jsonl

from data.sets.language import load_language
from minisum.errors import UserError


def write(folder, rows):
    return write_jsonl(folder / "d.jsonl", rows)


def some_rows(count=60):
    return [{"body": f"document number {i}", "n": i} for i in range(count)]


def test_first_rows_or_a_draw(tmp_path):
    path = write(tmp_path, some_rows())
    whole = load_language(data_file=path, validation=0.2)
    limits = {"limit_train": 9, "limit_test": 2, "validation": 0.2}
    first = load_language(data_file=path, first_rows=True, **limits)
    drawn = load_language(data_file=path, **limits)
    for split, limit in (("train", 9), ("test", 2)):
        texts = whole.splits[split]
        assert first.splits[split] == texts[:limit]
        assert len(drawn.splits[split]) == limit and set(drawn.splits[split]) <= set(texts)
    assert drawn.splits["train"] != first.splits["train"]
    assert whole.splits["val"] == first.splits["val"] == drawn.splits["val"]
    assert len({whole.sha256, first.sha256, drawn.sha256}) == 3
    other = load_language(data_file=path, seed=1, **limits)
    assert other.splits["train"] != drawn.splits["train"]


def test_without_validation(tmp_path):
    text = tmp_path / "d.txt"
    text.write_text("".join(f"line {i}\n" for i in range(60)))
    for path in (write(tmp_path, some_rows()), text):
        splits = load_language(data_file=path, validation=0).splits
        assert splits["val"] == [] and splits["train"] and splits["test"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"body": "half of \ud800 a pair"}, "row 61: column 'body' holds half of a surrogate"),
        ({"body": None}, "row 61: column 'body' is empty"),
        ({"n": 1}, "row 61: column 'body' is empty"),
        ({"body": 5}, "row 61: column 'body' holds int, not text"),
    ],
)
def test_a_bad_document_is_named(tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        load_language(data_file=write(tmp_path, [*some_rows(), more]), validation=0.2)


@pytest.mark.parametrize("row", [{"a": "x", "b": "y"}, {"body": "x", "review": "y"}])
def test_a_text_column_that_is_not_obvious(tmp_path, row):
    path = write(tmp_path, [row] * 3)
    with pytest.raises(UserError, match="which one is the text is not obvious.*--text-column"):
        load_language(data_file=path)
