"""What it means for two results to agree, and the ops that the tests of invariants ask."""

import numpy as np
from conftest import XP
from op_cases import EXACT, SMOOTH, named

from minisum import backend, ops

OPS = EXACT | SMOOTH

# How far a result may be from float64's, as a share of the largest number in it: the one table.
# About 100 roundings of the type.
TOLERANCE = {"float64": 2e-14, "float32": 1e-5}

POOLED = {
    "sum_tokens": ops.sum_tokens,
    "mean_tokens": ops.mean_tokens,
    "mean_tokens by root": named(ops.mean_tokens, power=0.5),
    "cumsum_tokens": ops.cumsum_tokens,
}


def host(x):
    return backend.to_numpy(x)


def assert_same(a, b):
    """Equal to the last bit."""
    np.testing.assert_array_equal(host(a), host(b), strict=True)


def assert_close(found, wanted, dtype="float64", terms=0.0):
    """Equal but for rounding of `dtype`; terms: how large the numbers are that cancelled."""
    found, wanted = host(found).astype(np.float64), host(wanted).astype(np.float64)
    assert found.shape == wanted.shape
    assert np.isfinite(found).all()
    scale = np.abs(wanted).max(initial=0)
    error = np.abs(found - wanted).max(initial=0)
    assert error <= TOLERANCE[dtype] * max(scale, terms, 1), (error, scale, terms)


def size_of_terms(arrays, gradients, y, dy):
    """The largest of dy ⊙ y and of every gradient times its argument.

    Each is how much the loss changes with a number, so a gradient may be a small difference of
    others: a decay's is q ⊙ dq - k ⊙ dk, and it has the roundings of those.
    """
    factors = [*zip(parts(y), parts(dy), strict=True)]
    factors += zip(filter(is_real, arrays), gradients, strict=True)
    sizes = [np.abs(host(a)).max(initial=0) * np.abs(host(b)).max(initial=0) for a, b in factors]
    return max(sizes)


def is_real(x):
    return x is not None and x.dtype.kind == "f"


def arrays_only(gradients):
    """The gradients of the real arguments, in order, a table's as an array."""
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return [g.dense() if hasattr(g, "dense") else g for g in gradients if g is not None]


def each(f, *ys):
    """f of an output, or of each of several outputs: what `back` takes."""
    return tuple(map(f, *ys)) if isinstance(ys[0], tuple) else f(*ys)


def parts(y):
    return y if isinstance(y, tuple) else (y,)


def cotangent(case, y):
    return each(lambda part: XP.asarray(case.rng.normal(size=part.shape)), y)
