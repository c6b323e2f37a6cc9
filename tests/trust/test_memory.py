"""What a backward pass keeps is what the docstring's `Saved:` line says, byte for byte."""

import numpy as np
import pytest
from conftest import XP

from minisum import ops
from minisum.ops.__main__ import saved_arrays

if XP is not np:
    pytest.skip("reads the memory that NumPy's arrays own", allow_module_level=True)

B, n, m, d, o, V, H, h, e = 2, 64, 64, 6, 5, 7, 3, 4, 2
REAL, ID, BOOL = 4, 8, 1


def real(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 1, shape).astype(np.float32)


def ids(below, *shape):
    return np.random.default_rng(0).integers(0, below, shape)


def mask():
    return np.arange(n) < np.array([[3], [n]])


QKV = (real(B, H, n, h), real(B, H, m, h, seed=1), real(B, H, m, e, seed=2))
QKV_BYTES = REAL * B * H * (n * h + m * h + m * e)
X = REAL * B * n * d

# op and its arguments; what `Saved:` says; that in bytes
SAVED = {
    "linear": (
        lambda: ops.linear(real(B, n, d), real(o, d), real(o)), "x, W", X + REAL * o * d),
    "embed": (
        lambda: ops.embed(ids(V, B, n), real(V, d)), "ids, and the table's shape",
        ID * B * n),
    "modulate": (
        lambda: ops.modulate(real(B, n, d), real(n, d), 1.0), "x, positions", X + REAL * n * d),
    "add_positions": (
        lambda: ops.add_positions(real(B, n, d), real(n, d)), "nothing", 0),
    "relu": (
        lambda: ops.relu(real(B, n, d)), "which entries were positive (one byte each)",
        BOOL * B * n * d),
    "gelu": (lambda: ops.gelu(real(B, n, d)), "x, Φ(x)", 2 * X),
    "sigmoid": (lambda: ops.sigmoid(real(B, n, d)), "y", X),
    "silu": (lambda: ops.silu(real(B, n, d)), "x", X),
    "softplus": (lambda: ops.softplus(real(B, n, d)), "x", X),
    "layer_norm": (
        lambda: ops.layer_norm(real(B, n, d), real(d), real(d)),
        "x, gain, mean and r (one number each a token); x̂ is made again from them",
        X + REAL * d + REAL * 2 * B * n),
    "rms_norm": (
        lambda: ops.rms_norm(real(B, n, d), real(d)), "x, gain, r (one number a token)",
        X + REAL * d + REAL * B * n),
    "sum_tokens": (
        lambda: ops.sum_tokens(real(B, n, d), mask()), "mask, and the shape of x", BOOL * B * n),
    "mean_tokens": (
        lambda: ops.mean_tokens(real(B, n, d), mask()), "mask, c^power, and the shape of x",
        BOOL * B * n + REAL * B),
    "cumsum_tokens": (
        lambda: ops.cumsum_tokens(real(B, n, d), mask()), "mask", BOOL * B * n),
    "dropout": (
        lambda: ops.dropout(real(B, n, d), np.ones((B, 1, d), bool), 0.5), "keep", BOOL * B * d),
    "split_heads": (lambda: ops.split_heads(real(B, n, d), H), "nothing", 0),
    "merge_heads": (lambda: ops.merge_heads(real(B, H, n, h)), "the number of heads", 0),
    "attention": (
        lambda: ops.attention(*QKV, mask()), "q, k, v, p (n·m numbers a head)",
        QKV_BYTES + REAL * B * H * n * m),
    "attention_blocked": (
        lambda: ops.attention_blocked(*QKV, mask(), True, block=16),
        "q / √h, k, v, mask, y, and L (one number a query and head)",
        QKV_BYTES + BOOL * B * m + REAL * B * H * n * (e + 1)),
    "cross_entropy": (
        lambda: ops.cross_entropy(real(B, n, V), ids(V, B, n)),
        "p, the targets, and which of them count", REAL * B * n * V + (ID + BOOL) * B * n),
    "binary_cross_entropy": (
        lambda: ops.binary_cross_entropy(real(B, n), real(B, n)), "logits, targets",
        REAL * 2 * B * n),
    "mean_squared_error": (
        lambda: ops.mean_squared_error(real(B, n), real(B, n, seed=1)), "y - targets",
        REAL * B * n),
}  # fmt: skip


def saved_line(op):
    """The text after `Saved:`, without its line breaks and its full stop."""
    return " ".join(op.__doc__.partition("Saved:")[2].split()).removesuffix(".")


def test_every_op_of_these_files_is_here():
    files = {getattr(ops, name).__module__ for name in SAVED}
    assert set(SAVED) == {name for name in ops.__all__ if getattr(ops, name).__module__ in files}


@pytest.mark.parametrize("name", SAVED)
def test_kept_bytes_are_those_of_the_docstring(name):
    run, words, expected = SAVED[name]
    assert saved_line(getattr(ops, name)) == words
    _, back = run()
    kept = {a.shape: a.nbytes for a in saved_arrays(back) if a.ndim}
    assert sum(a.nbytes for a in saved_arrays(back) if a.ndim) == expected, kept


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_line_is_the_docstrings_last(name):
    op = getattr(ops, name)
    assert op.__doc__.count("Saved:") == 1
    assert "\n\n" not in op.__doc__.partition("Saved:")[2].rstrip()


@pytest.mark.parametrize("length", [64, 256])
def test_blocked_attention_keeps_nothing_quadratic(length):
    q = real(1, 1, length, h)
    _, back = ops.attention_blocked(q, q, q, None, True, block=16)
    assert all(a.size <= length * h for a in saved_arrays(back))
    _, back = ops.attention(q, q, q, None, True)
    assert any(a.size == length**2 for a in saved_arrays(back))


def test_what_is_counted():
    """The counting itself: nested functions, containers, views, and shared arrays only once."""
    x, y, z = np.zeros(4), np.zeros((3, 3)), np.zeros(5)

    def inner():
        return x, y.T

    table = {"z": [z[1:], z[:2]]}
    found = saved_arrays(lambda: (inner, table, x))
    assert sorted(a.nbytes for a in found) == [32, 40, 72]
