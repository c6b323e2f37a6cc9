"""Columns of numbers, cell by cell: what is missing, what is refused, what fills a gap."""

import math

import numpy as np
import pytest

from minisum.columns import (
    LARGEST,
    LARGEST_SCALED,
    Standardiser,
    column_statistics,
    fill_gaps,
    read_number,
    require_moderate,
)
from minisum.errors import UserError

NAN = math.nan


@pytest.mark.parametrize("cell", [None, "", " ", "NA", " n/a\n", "NaN", "null", "None", "-", "?"])
def test_a_missing_cell(cell):
    assert math.isnan(read_number(cell, "size", "a.csv, row 2"))


@pytest.mark.parametrize("cell, number", [(" 1.5 ", 1.5), ("-2", -2), (3, 3), (1e150, LARGEST)])
def test_a_number(cell, number):
    assert read_number(cell, "size", "a.csv, row 2") == number


@pytest.mark.parametrize(
    "cell, words",
    [
        ("two", "'two' is not a number"),
        ([1], "is not a number"),
        (-1.1e150, "too large to be squared"),
        ("inf", "too large to be squared"),
        (10**400, "too large to be squared"),
    ],
)
def test_a_cell_that_is_refused(cell, words):
    with pytest.raises(UserError, match="a.csv, row 2, column 'size'") as error:
        read_number(cell, "size", "a.csv, row 2")
    assert words in str(error.value)


def test_statistics_leave_gaps_out():
    values = np.array([[1, NAN, 0.1], [3, 5, 0.1], [NAN, 9, 0.1]])
    mean, deviation = column_statistics(values, ["a", "b", "c"])
    np.testing.assert_allclose(mean, [2, 7, 0.1], rtol=1e-15)
    assert deviation.tolist() == [1, 2, 0]
    large = np.full((11, 1), 1e9 / 3)  # their mean is off by rounding
    assert np.nanstd(large) > 1e-9 and column_statistics(large, ["a"])[1].tolist() == [0]
    with pytest.raises(UserError, match="'b' has no value"):
        column_statistics(np.array([[1, NAN], [2, NAN]]), ["a", "b"])
    with pytest.raises(UserError, match="'b' holds numbers too large"):
        column_statistics(np.array([[1, 1e200], [2, -1e200]]), ["a", "b"])


def test_too_far_from_the_mean():
    """The first cell that is, by its column's name."""
    scaled = np.array([[0, NAN, LARGEST_SCALED], [0, -2e15, 3e16]])
    with pytest.raises(UserError, match="olumn 'b' holds a number -2e\\+15 deviations"):
        require_moderate(scaled, ["a", "b", "c"])
    require_moderate(scaled[:1], ["a", "b", "c"])


def test_standardised_cells():
    fit = Standardiser.fit(np.array([[1, 4.0], [3, 4]]), ["a", "b"])
    assert (fit.mean, fit.deviation, fit.flagged, fit.inputs) == ([2, 4], [1, 0], False, 1)
    found = fit(np.array([[5, 9], [NAN, NAN]]))  # a column that never changed says nothing
    assert found.dtype == np.float32 and found[:, :, 0].tolist() == [[3, 0], [0, 0]]
    flagged = Standardiser.fit(np.array([[1, 4.0], [3, NAN]]), ["a", "b"])
    assert flagged.inputs == 2
    assert flagged(np.array([[5, NAN]])).tolist() == [[[3, 0], [0, 1]]]
    with pytest.raises(UserError, match="number 1"):
        fit(np.array([[1e30, 0]]))


def test_gaps_are_filled_from_before():
    scaled = np.array([[NAN, 1], [2, NAN], [NAN, NAN], [-3, 4], [NAN, 5]])
    assert fill_gaps(scaled).tolist() == [[0, 1], [2, 1], [2, 1], [-3, 4], [-3, 5]]
