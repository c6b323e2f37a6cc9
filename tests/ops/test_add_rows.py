"""A table's gradient: rows added where they belong, repeated ids included."""

import numpy as np
import pytest
from conftest import XP
from hypothesis import given
from hypothesis import strategies as st

from minisum.backend import to_numpy
from minisum.ops.embedding import add_rows
from minisum.strategies import Case, seeds

DTYPES = ["float32", "float64"]
SHAPES_OF_IDS = [(), (1,), (7,), (3, 5), (0,), (40, 2)]


@pytest.mark.parametrize("id_type", ["int32", "int64"])
@pytest.mark.parametrize("dtype", DTYPES)
@given(st.integers(1, 9), st.integers(1, 6), st.sampled_from(SHAPES_OF_IDS), seeds())
def test_add_rows_is_the_loop(dtype, id_type, V, d, shape, seed):
    """Repeated ids, ids of any shape, rows and tables in any memory layout."""
    case = Case({"V": V, "d": d}, seed, XP)
    ids = XP.asarray(case.rng.integers(0, V, shape).astype(id_type))
    letters = " ".join(map(str, shape)) + " d"
    rows = (
        case.grid(letters).astype(dtype)
        if seed % 2
        else case.grid(letters + " 2")[..., 0].astype(dtype)
    )
    if shape:
        rows = case._finish(rows)
    start = case.grid("V d").astype(dtype)
    wanted = to_numpy(start).copy()
    for i, row in zip(to_numpy(ids).reshape(-1), to_numpy(rows).reshape(-1, d), strict=True):
        wanted[i] += row
    wide = XP.zeros((V, 2 * d), dtype)
    for table in (
        start.copy(),
        XP.asfortranarray(start.copy()),
        wide[:, ::2],
        wide[:, d - 1 :: -1],
    ):
        table[...] = start
        add_rows(table, ids, rows)
        np.testing.assert_array_equal(to_numpy(table), wanted)
    assert table.dtype == dtype and (d == 1 or not to_numpy(wide).all())


def test_add_rows_of_many():
    """Sizes where a faster form might take over: thousands of ids, few and many of a kind."""
    rng = np.random.default_rng(0)
    for V, count, d in [(3, 5000, 8), (10000, 5000, 8), (50, 300, 1), (5000, 20000, 64)]:
        ids = rng.integers(0, V, count)
        ids[: count // 4] = 1
        rows = rng.integers(-8, 9, (count, d)) / 8
        wanted = np.zeros((V, d))
        np.add.at(wanted, ids, rows)
        for dtype in ("float32", "float64"):
            table = XP.zeros((V, d), dtype)
            add_rows(table, XP.asarray(ids), XP.asarray(rows.astype(dtype)))
            np.testing.assert_array_equal(to_numpy(table), wanted)
