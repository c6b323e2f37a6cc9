"""Feature maps: what their products are, and that no number however large turns into NaN."""

import math

import numpy as np
import pytest
from agreement import assert_close, assert_same, host
from conftest import XP
from hypothesis import given
from op_cases import draw

from minisum import mixers, ops
from minisum.mixers.linear_attention import MAPS, orthogonal_directions
from minisum.params import Params


@given(case=draw())
def test_products_of_taylor_features_are_the_series(case):
    q, k = case.normal("B n h"), case.normal("B n h")
    s = (q * k).sum(axis=-1) / math.sqrt(case.h)
    assert_close((ops.taylor(q)[0] * ops.taylor(k)[0]).sum(axis=-1), 1 + s + s * s / 2)


def test_products_of_random_features_tend_to_the_exponential():
    rng = np.random.default_rng(0)
    q, k = XP.asarray(rng.normal(0, 0.4, (2, 50, 4)))
    errors = []
    for m in (16, 16384):
        omega = rng.normal(size=(m, 4))
        found = (ops.favor(q, omega)[0] * ops.favor(k, omega)[0]).sum(axis=-1)
        exact = XP.exp((q * k).sum(axis=-1) / 2)
        errors.append(float(abs(found - exact).mean() / exact.mean()))
    assert errors[0] > 0.1 and errors[1] < 0.02


def test_random_directions_are_orthogonal_in_blocks():
    omega = orthogonal_directions(8)["omega"]
    assert omega.shape == (int(8 * math.log(8)), 8)
    products = omega[:8] @ omega[:8].T
    np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-12)


@pytest.mark.parametrize("h", [16, 64, 128])
def test_random_features_of_wide_heads_are_above_their_floor(h):
    """Else all tokens would have the same features, and attention would be a mean."""
    x = XP.asarray(np.random.default_rng(0).normal(size=(100, h)))
    omega = orthogonal_directions(h)["omega"]
    E = host(ops.favor(x, omega)[0]) * math.sqrt(len(omega)) - 1e-4
    assert np.median(E) > 10 * 1e-4


def test_random_features_are_held():
    """A held exponent has a value, and no slope."""
    y, back = ops.favor(XP.asarray([[9.0]]), np.array([[10.0], [1.0]]))
    assert_close(y, (XP.exp(XP.asarray([[30.0, -31.5]])) + 1e-4) / math.sqrt(2))
    dx = back(XP.asarray([[1.0, 0.0]]))
    assert not host(dx).any()


@given(case=draw())
def test_a_focus_of_one_is_a_relu(case):
    """Softplus is 1 at log(e - 1). Any power keeps the length of a token's features."""
    x, s = case.normal("B H n h"), XP.full(case.shape("H h"), math.log(math.e - 1))
    r = XP.maximum(x, 0) + 1e-6
    assert_close(ops.focused(x, s, power=1)[0], r)
    y, _ = ops.focused(x, s)
    assert_close((y * y).sum(axis=(1, 3)), (r * r).sum(axis=(1, 3)))


@given(case=draw())
def test_bounded_features_sum_to_one(case):
    x = case.normal("B H n h")
    one = XP.ones(case.shape("B H n"))
    W = case.normal("h h")
    assert_close(ops.hedgehog(x, W, case.normal("h"))[0].sum(axis=-1), one)
    assert_close(ops.log_normal_query(x, case.uniform("H", 1, 2))[0].sum(axis=-1), one)


def test_log_normal_keys_are_held():
    """A held exponent has a value, and no slope."""
    x, rate = XP.asarray([[[[100.0, 1.0]]]]), XP.asarray([2.0])
    y, back = ops.log_normal_key(x, rate)
    assert_close(y, XP.exp(XP.asarray([[[[30.0, 2.0]]]])))
    dx, drate = back(XP.ones_like(y))
    assert_close(dx, XP.asarray([[[[0.0, 2 * math.exp(2)]]]]))
    assert_close(drate, XP.asarray([math.exp(2)]))


def test_norm_aware_queries_of_zero():
    y, back = ops.norm_aware_query(XP.zeros((2, 3)))
    assert not host(y).any() and not host(back(XP.ones_like(y))).any()


def test_dpfp_multiplies_neighbours():
    y, _ = ops.dpfp(XP.asarray([2.0, -3.0]), nu=1)  # z = [2, 0, 0, 3]
    assert_same(y, XP.asarray([6.0, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", [0.0, 1e-20, 300.0])
@pytest.mark.parametrize("name", MAPS)
def test_no_feature_map_overflows(name, size, causal):
    """Tokens of nothing, next to nothing and of hundreds, in float32, forward and backward."""
    mixer = mixers.build("linear_attention", 32, 2, causal=causal, feature_map=name)
    rng = np.random.default_rng(0)
    params = Params.from_arrays(mixer.init(rng), XP)
    x = XP.asarray(size * rng.normal(size=(1, 50, 32)), "float32")
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, back = mixer(params, x)
        dx, dparams = back(XP.ones_like(y))
    assert np.isfinite(host(y)).all() and np.isfinite(host(dx)).all()
    assert all(np.isfinite(host(a)).all() for layer in dparams.values() for a in layer.values())
