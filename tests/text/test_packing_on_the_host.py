"""The shapes that a GPU is given, checked where there is none: padding stands behind the text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisum.packing import LEAST_KEPT, LENGTH_BUCKET, pack_texts, pad_texts


def drawn(B, n, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((B, n)) < 0.6
    return {"ids": np.where(mask, rng.integers(1, 99, (B, n)), 0).astype(np.int32), "mask": mask,
            "targets": np.arange(B)}  # fmt: skip


sizes = st.tuples(st.integers(1, 5), st.integers(1, 70), st.integers(0, 2**32 - 1))


@given(sizes=sizes, room=st.integers(0, 40))
def test_texts_are_padded_behind(sizes, room):
    batch, n = drawn(*sizes), sizes[1]
    padded = pad_texts(batch, n + room)
    wide = padded["ids"].shape[1]
    assert wide == min(n + room, -(-n // LENGTH_BUCKET) * LENGTH_BUCKET)
    for name in ("ids", "mask"):
        assert padded[name].dtype == batch[name].dtype
        np.testing.assert_array_equal(padded[name][:, :n], batch[name])
        assert not padded[name][:, n:].any()
    assert padded["targets"] is batch["targets"]
    assert pad_texts(batch, n + room, masked=False) is batch


@given(sizes=sizes)
def test_packed_texts_name_their_real_tokens(sizes):
    batch = drawn(*sizes)
    packed = pack_texts(batch, 1000)
    n = packed["ids"].shape[1]
    assert n >= sizes[1] and n & (n - 1) == 0
    places = packed["mask"]
    real = int(batch["mask"].sum())
    assert places.dtype == np.int32 and len(places) >= max(LEAST_KEPT, real)
    assert len(places) <= max(LEAST_KEPT, real * 9 // 8 + 1)
    assert (places[real:] == -1).all() and (np.diff(places[:real]) > 0).all()
    rows, columns = np.divmod(places[:real], n)
    np.testing.assert_array_equal(np.argwhere(batch["mask"]), np.stack([rows, columns], axis=1))


@pytest.mark.parametrize("n", [1, 15, 16, 17, 32, 33])
def test_lengths_around_a_bucket(n):
    assert pad_texts(drawn(2, n, 0), 100)["ids"].shape[1] == -(-n // 16) * 16
