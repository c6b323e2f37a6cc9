"""Times, ends of splits, and the small print of messages: each at its border."""

import datetime

import numpy as np
import pytest

from data.reading import times
from data.reading.columns import listed, read_labelled
from data.reading.rows import read_rows
from data.sets.cleaning import strip_footer, wikitext_articles
from data.sets.forecast import Series, Windows, split_ends
from minisum.errors import UserError

HOUR = datetime.timedelta(hours=1)


def test_days_that_can_be_read_in_one_way_alone_become_iso():
    assert times.in_iso(["13/02/2024", "14/02/2024"]) == [
        "2024-02-13 00:00:00", "2024-02-14 00:00:00"
    ]  # fmt: skip
    assert times.in_iso(["2024/01/02 03:04"]) == ["2024-01-02 03:04:00"]
    for either in (["01/02/2024", "03/04/2024"], ["1", "2"], [1, 2], ["13/02/2024", "x"]):
        assert times.in_iso(either) == either
    assert times.in_iso(["05/05/2024"]) == ["2024-05-05 00:00:00"]  # both ways say the same


def test_the_step_is_the_median_of_the_first_hundred():
    begin = datetime.datetime(2024, 1, 1)
    hours = [(begin + HOUR * i).isoformat(" ") for i in range(100)]
    later = [(begin + datetime.timedelta(days=10 + i)).isoformat(" ") for i in range(300)]
    assert times.time_step(hours + later) == HOUR
    assert times.time_step([hours[0], hours[1], hours[2], hours[9]]) == HOUR
    assert times.time_step(hours[:1]) is None and times.time_step(None) is None
    assert times.steps_in_a_day(hours) == 24
    assert times.steps_in_a_day(hours[::24]) is None  # a day apart
    assert times.steps_in_a_day(hours[:2] + hours[:1] * 9) is None  # no way ahead
    assert times.times_ahead(hours + later, 2) == ["2024-11-06 00:00:00", "2024-11-07 00:00:00"]
    assert times.times_ahead(hours, 2) == ["2024-01-05 04:00:00", "2024-01-05 05:00:00"]
    assert list(times.times_ahead(None, 2)) == [1, 2]


def test_each_row_has_a_time():
    """Also as parquet has it, which is no text."""
    begin = datetime.datetime(2024, 1, 1)
    times.require_order([begin, begin + HOUR], "tides")
    for missing in (None, "", " "):
        with pytest.raises(UserError, match="tides, row 2: it has no time"):
            times.require_order([begin, missing], "tides")


def test_ends_of_splits():
    other = Series("tides", ("a",), np.zeros((99, 1)))
    assert split_ends(other) == (69, 80, 99) and split_ends(other, "published") == (59, 79, 99)
    short = Series("ETTh1", ("a",), np.zeros((14_399, 1)))  # no 20 months: cut like any other
    assert split_ends(short) == (10_079, 11_520, 14_399)
    assert split_ends(Series("ETTh1", ("a",), np.zeros((14_400, 1)))) == (8640, 11_520, 14_400)


def test_windows_are_standardised_by_the_training_rows():
    values = np.arange(200.0)[:, None] * [1, 0] + [0, 7]
    windows = Windows(Series("tides", ("a", "b"), values), "standard", 4, 2)
    train = windows.targets[: windows.ends[0]]
    np.testing.assert_allclose(train.mean(axis=0), [0, 0], atol=1e-6)
    np.testing.assert_allclose(train.std(axis=0), [1, 0], atol=1e-6)
    np.testing.assert_allclose(windows.mean, [69.5, 7])


def test_the_names_of_columns_end_after_twenty():
    assert listed("ab") == "'a', 'b'"
    assert listed(str(i) for i in range(20)).endswith("'19'")
    assert listed(str(i) for i in range(1021)).endswith(", '19' and 1,001 more")


def test_rows_that_are_left_out_are_counted():
    rows = [{"text": text, "label": label} for text, label in zip("ab c", "1 23", strict=True)]
    data = read_labelled(rows, "file", skip_empty=True)
    assert (data.texts, data.labels, data.left_out) == (["a", "c"], ["1", "3"], 2)


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_one_column_is_a_table_where_no_separator_stands_in_its_name(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_text("text\none\ntwo\n")
    assert [row["text"] for row in read_rows(path)] == ["one", "two"]
    path.write_text("text;label\none;a\n")
    with pytest.raises(UserError, match="only the column 'text;label'"):
        list(read_rows(path))
    path.write_text("text;x{}label\none{}a\n".format(*(",\t"[suffix == "tsv"] * 2)))
    assert list(read_rows(path)) == [{"text;x": "one", "label": "a"}]


def test_the_footer_of_a_message():
    assert strip_footer("one\ntwo\n--\nme") == "one\ntwo"
    assert strip_footer("one\n \t\ntwo\n -- \nme") == "one\n \t\ntwo"
    assert strip_footer("one\n  \nme") == "one"
    assert strip_footer("--\nme") == "--\nme"


def test_lines_before_the_first_heading_are_an_article():
    lines = ["before \n", " = One = \n", " a \n", " = Two = \n", " b \n", " c \n"]
    assert wikitext_articles(lines) == [
        "before \n", " = One = \n a \n", " = Two = \n b \n c \n"
    ]  # fmt: skip
