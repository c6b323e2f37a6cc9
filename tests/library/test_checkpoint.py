"""A checkpoint says exactly what was saved, or that it is damaged."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisum import checkpoint
from minisum.errors import UserError

pytest.importorskip("safetensors")

ARRAYS = {
    "vector": np.arange(40, dtype=np.float32) / 7,
    "m": np.random.default_rng(1).normal(size=(3, 5)),
    "ids": np.array([[1, -2]], dtype=np.int64),
    "scalar": np.array(2.5, dtype=np.float32),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "mask": np.array([True, False, True]),
}
META = {"epoch": 3, "best": 0.1 + 0.2, "classes": ["é", "b\n"], "nothing": None}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "last.safetensors"
    checkpoint.save(path, ARRAYS, META)
    return path.read_bytes()


def assert_same(arrays, meta):
    assert meta == META
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()


def refused_or_same(path):
    """Damage is refused with UserError, unless it left every name, array and word as it was."""
    try:
        arrays, meta = checkpoint.load(path)
    except UserError as error:
        assert str(path) in str(error)
        return
    assert_same(arrays, meta)


def test_round_trip_and_same_bytes(saved, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(saved)
    assert_same(*checkpoint.load(path))
    checkpoint.save(tmp_path / "b.safetensors", dict(reversed(ARRAYS.items())), META)
    assert (tmp_path / "b.safetensors").read_bytes() == saved
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_any_layout(tmp_path):
    base = np.random.default_rng(0).normal(size=(4, 6))
    views = {"transposed": base.T, "strided": base[::2, ::-1], "fortran": np.asfortranarray(base)}
    checkpoint.save(tmp_path / "a", views, {})
    arrays, _ = checkpoint.load(tmp_path / "a")
    for name, view in views.items():
        assert np.array_equal(arrays[name], view)


def test_readable_by_safetensors_alone(saved):
    from safetensors.numpy import load

    assert np.array_equal(load(saved)["vector"], ARRAYS["vector"])


@settings(deadline=None, max_examples=400)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_bit_flips(saved, tmp_path_factory, position, bit):
    path = tmp_path_factory.getbasetemp() / "flipped"
    damaged = bytearray(saved)
    damaged[int(position * len(saved))] ^= 1 << bit
    path.write_bytes(damaged)
    refused_or_same(path)


def test_every_flip_of_the_tensors_is_refused(saved, tmp_path):
    path = tmp_path / "flipped"
    start = 8 + int.from_bytes(saved[:8], "little")
    for position in range(start, len(saved), 7):
        damaged = bytearray(saved)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load(path)


@settings(deadline=None, max_examples=60)
@given(length=st.floats(0, 1, exclude_max=True))
def test_truncation(saved, tmp_path_factory, length):
    path = tmp_path_factory.getbasetemp() / "truncated"
    path.write_bytes(saved[: int(length * len(saved))])
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(path)


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=200))
def test_garbage(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(path)


def with_header(header, body=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


HUGE = {"x": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        (2**60).to_bytes(8, "little") + b"{}",
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        with_header({}),
        with_header([]),
        with_header({"__metadata__": {}}),
        with_header({"__metadata__": {"minisum": "{}"}}),
        with_header({"__metadata__": {"minisum": "[" * 5000}}),
        with_header({"__metadata__": {"minisum": '{"sha256": "", "meta": "{}"}'}} | HUGE),
    ],
    ids=["empty", "2**60", "2**64", "no meta", "list", "no entry", "no keys", "deep", "huge"],
)
def test_claims_are_not_believed(tmp_path, data):
    path = tmp_path / "claim"
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        checkpoint.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="not a regular file"):
        checkpoint.load(tmp_path)
    with pytest.raises(UserError, match="cannot write"):
        checkpoint.save(tmp_path / "none" / "last", ARRAYS, META)


def test_previous_generation_is_kept(tmp_path):
    path, previous = tmp_path / "last", tmp_path / "last.previous"
    for epoch in range(3):
        checkpoint.save(path, ARRAYS, {"epoch": epoch}, previous=previous)
    assert checkpoint.load(path)[1] == {"epoch": 2}
    assert checkpoint.load(previous)[1] == {"epoch": 1}


@pytest.mark.skipif(os.name != "posix", reason="RLIMIT_FSIZE is POSIX")
def test_no_room_leaves_the_old_file(saved, tmp_path):
    path = tmp_path / "last"
    path.write_bytes(saved)
    script = f"""
import resource, numpy as np
from minisum import checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    checkpoint.save({str(path)!r}, {{"x": np.zeros(10000)}}, {{}}, previous={str(path) + "2"!r})
except ValueError as error:
    print(type(error).__name__, error)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert answer.stdout.startswith("UserError cannot write"), answer
    assert [file.name for file in tmp_path.iterdir()] == ["last"]
    assert path.read_bytes() == saved
