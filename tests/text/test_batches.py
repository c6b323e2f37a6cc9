"""Padding loses nothing, orders repeat, numbers out of range are caught."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisum.errors import UserError
from minisum.text.batches import Ragged, batches, check_ids, epoch_order, pad

quick = settings(deadline=None, max_examples=80)
sequences = st.lists(st.lists(st.integers(1, 99), max_size=9), max_size=6)
sides = st.sampled_from(["left", "right"])
keeps = st.sampled_from(["first", "last"])


def cut(sequence, max_len, keep):
    return sequence[:max_len] if keep == "first" else sequence[max(0, len(sequence) - max_len) :]


@quick
@given(sequences, st.integers(1, 12), sides, keeps, st.booleans())
def test_pad_round_trip(rows, max_len, side, keep, fixed):
    ids, mask = pad(rows, max_len, side, keep, pad_to=max_len if fixed else None)
    expected = [cut(row, max_len, keep) for row in rows]
    assert [ids[i][mask[i]].tolist() for i in range(len(rows))] == expected
    longest = max([1, *map(len, expected)])
    assert ids.shape == mask.shape == (len(rows), max_len if fixed else longest)
    assert (ids.dtype, mask.dtype) == (np.int32, np.bool_)
    assert not ids[~mask].any()
    for row_mask, row in zip(mask, expected, strict=True):
        edge = row_mask[: len(row)] if side == "right" else row_mask[len(row_mask) - len(row) :]
        assert edge.all() and row_mask.sum() == len(row)


def test_published_padding():
    ids, mask = pad([[1, 2, 3], [4], []], 2, side="left", keep="last", pad_to=2)
    assert ids.tolist() == [[2, 3], [0, 4], [0, 0]]
    assert mask.tolist() == [[True, True], [False, True], [False, False]]


def test_empty_documents():
    ids, mask = pad([[], []], 5)
    assert ids.shape == (2, 1) and not mask.any()


def test_pad_refuses():
    with pytest.raises(UserError, match="at least 1"):
        pad([[1]], 0)
    with pytest.raises(UserError, match="do not fit in 3"):
        pad([[1]], 4, pad_to=3)
    with pytest.raises(ValueError, match="middle"):
        pad([[1]], 4, side="middle")
    with pytest.raises(ValueError, match="some"):
        pad([[1]], 4, keep="some")


@quick
@given(sequences, st.integers(0, 12), keeps, st.data())
def test_ragged_is_a_list_of_arrays(rows, max_len, keep, data):
    ragged = Ragged.from_list(rows)
    assert len(ragged) == len(rows)
    assert [row.tolist() for row in ragged] == rows
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    assert ragged.flat.dtype == np.int32 and ragged.offsets.dtype == np.int64
    truncated = ragged.truncate(max_len, keep)
    assert [row.tolist() for row in truncated] == [cut(row, max_len, keep) for row in rows]
    if rows:
        indices = data.draw(st.lists(st.integers(-len(rows), len(rows) - 1)))
        assert [row.tolist() for row in ragged.take(indices)] == [rows[i] for i in indices]
        assert ragged[-1].tolist() == rows[-1]
    with pytest.raises(IndexError):
        ragged[len(rows)]


def test_padding_a_selection_equals_padding_its_list():
    rng = np.random.default_rng(5)
    rows = [rng.integers(1, 50, rng.integers(0, 20)) for _ in range(40)]
    chosen = epoch_order(40, 3, 1)[:16]
    for a, b in zip(
        pad(Ragged.from_list(rows).take(chosen), 10, keep="last"),
        pad([rows[i] for i in chosen], 10, keep="last"),
        strict=True,
    ):
        assert np.array_equal(a, b)


def test_epoch_order():
    order = epoch_order(100, seed=7, epoch=2)
    assert sorted(order) == list(range(100))
    assert np.array_equal(order, epoch_order(100, seed=7, epoch=2))
    assert not np.array_equal(order, epoch_order(100, seed=7, epoch=3))
    assert not np.array_equal(order, epoch_order(100, seed=8, epoch=2))


@quick
@given(st.integers(0, 30), st.integers(1, 12))
def test_batches_cover_the_order(n, size):
    order = epoch_order(n, 0, 0)
    pieces = list(batches(order, size))
    assert np.array_equal(np.concatenate([order[:0], *pieces]), order)
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(len(piece) > 0 for piece in pieces)
    with pytest.raises(UserError):
        next(batches(np.arange(3), 0))


@pytest.mark.parametrize("bad", [-1, 10, 2**31 - 1])
def test_check_ids_names_the_culprit(bad):
    rows = [[1, 2], [], [9, bad], [3]]
    for ids in (Ragged.from_list(rows), pad(rows, 2)[0]):
        with pytest.raises(UserError, match=f"row 2 holds the token number {bad};"):
            check_ids(ids, 10)
    with pytest.raises(UserError, match="row 2 "):
        check_ids(Ragged.from_list([[1], [], [bad], [3]]), 10)
    check_ids(Ragged.from_list([[0, 9], []]), 10)
    check_ids(np.zeros((0, 1), np.int32), 10)
