"""Numbers so large, so small or so much alike that a careless formula gives infinity or NaN."""

import math

import numpy as np
import pytest
from agreement import assert_close, assert_same, cotangent, host
from conftest import XP
from forms import ATTENTIONS
from hypothesis import given
from op_cases import draw

from minisum import ops
from minisum.normal import normal_cdf


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits(dtype):
    """Nothing overflows at ±10⁴, and the loss is the gap between the logits."""
    logits = XP.asarray([[1e4, -1e4, 0], [0, 1e4, 1e4]], dtype)
    with np.errstate(all="raise", under="ignore"):
        loss, back = ops.cross_entropy(logits, XP.asarray([1, 2]), total=1)
        assert_close(loss, np.array(2e4 + math.log(2)), dtype)
        assert_same(back(1.0)[0], XP.asarray([[1, -1, 0], [0, 0.5, -0.5]], dtype))
        plain = XP.eye(3, dtype=dtype)
        blocked, back_blocked = ops.linear_cross_entropy(
            logits, plain, None, XP.asarray([1, 2]), total=1
        )
        assert_close(blocked, host(loss), dtype)
        assert_same(back_blocked(1.0)[0], back(1.0)[0])
        x = XP.asarray([1e4, -1e4, 1e4, -1e4], dtype)
        loss, back = ops.binary_cross_entropy(x, XP.asarray([1, 0, 0, 1], dtype), total=1)
        assert float(loss) == 2e4
        assert_same(back(1.0)[0], XP.asarray([0, 0, 1, -1], dtype))
        for op in ATTENTIONS.values():
            q = XP.asarray([[[[1e4], [-1e4]]]], dtype)
            y, back = op(q, XP.asarray([[[[1.0], [-1.0], [0.0]]]], dtype), XP.asarray(
                [[[[1.0], [2.0], [4.0]]]], dtype))  # fmt: skip
            assert_same(y, XP.asarray([[[[1.0], [2.0]]]], dtype))
            assert all(np.isfinite(host(g)).all() for g in back(XP.ones_like(y))[:3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_activations(dtype):
    """At ±1000 (where exp underflows to a harmless 0) each is its asymptote to the last bit."""
    x = XP.asarray([-1e3, 1e3], dtype)
    with np.errstate(all="raise", under="ignore"):
        for op, y, dx in [
            (ops.sigmoid, [0, 1], [0, 0]),
            (ops.softplus, [0, 1e3], [0, 1]),
            (ops.silu, [0, 1e3], [0, 1]),
            (ops.gelu, [0, 1e3], [0, 1]),
            (ops.relu, [0, 1e3], [0, 1]),
        ]:
            found, back = op(x)
            assert (host(found) == y).all() and (host(back(XP.ones_like(x))) == dx).all()


def test_a_constant_row_through_the_norms():
    """No variance: layer norm gives the bias, and finite gradients."""
    x = XP.full((2, 4), 3.0)
    y, back = ops.layer_norm(x, XP.ones(4), XP.arange(4.0))
    assert_same(y[0], XP.arange(4.0))
    assert all(np.isfinite(host(g)).all() for g in back(XP.asarray(np.eye(2, 4))))
    y, back = ops.rms_norm(x * 0, XP.ones(4))
    assert not host(y).any() and np.isfinite(host(back(XP.ones((2, 4)))[0])).all()


@given(case=draw(d=(2, 6)))
def test_norms_do_not_see_size_or_shift(case):
    x, gain, bias = case.normal("B n d"), case.normal("d"), case.normal("d")
    y, _ = ops.layer_norm(x, gain, bias, eps=0.0)
    scale = max(1.0, float(abs(y).max()))
    moved = ops.layer_norm(4 * x + 8, gain, bias, eps=0.0)[0]
    spread = host(x).std(axis=-1).min()
    assert float(abs(moved - y).max()) < 1e-13 * scale * (1 + 1 / spread)
    assert_close(ops.rms_norm(4 * x, gain, eps=0.0)[0], ops.rms_norm(x, gain, eps=0.0)[0])
    dx, _, _ = ops.layer_norm(x, gain, bias, eps=0.0)[1](cotangent(case, y))
    assert float(abs(dx.sum(axis=-1)).max()) < 1e-12 * (1 + 1 / spread)


def test_normal_cdf():
    """Against the C library's erfc: all the pieces it is made of, their seams, the tail."""
    seams = math.sqrt(2) * np.array([0.46875, 4.0, -0.46875, -4.0])
    x = np.concatenate([
        np.linspace(-37, 9, 8001), seams, np.nextafter(seams, 99), np.nextafter(seams, -99),
        [1e-300, 30.0, -30.0, 1e300],
    ])  # fmt: skip
    wanted = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    found = host(normal_cdf(XP.asarray(x)))
    # The argument -v/√2 of the C library's erfc is rounded twice, which erfc multiplies by v².
    assert (np.abs(found - wanted) <= wanted * (2e-15 + 4e-16 * x.clip(-40, 40) ** 2)).all()
    narrow = x[(x > -12) & (x < 1e30)].astype("float32")
    assert normal_cdf(XP.asarray(narrow)).dtype == "float32"
    wanted = np.array([0.5 * math.erfc(-float(v) / math.sqrt(2)) for v in narrow])
    found = host(normal_cdf(XP.asarray(narrow)))
    assert (np.abs(found - wanted) <= wanted * (1e-6 + 1.2e-7 * narrow**2)).all()


def test_normal_cdf_at_the_ends():
    with np.errstate(all="raise", under="ignore"):
        y = host(normal_cdf(XP.asarray([math.inf, -math.inf, math.nan, 0.0, -0.0])))
    assert y[0] == 1 and 0 <= y[1] < 1e-190 and math.isnan(y[2])
    assert y[3] == y[4] == 0.5
