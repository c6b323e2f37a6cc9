"""Padding adds nothing and gets nothing back, whatever stands there and wherever it stands."""

import math

import numpy as np
import pytest
from agreement import POOLED, assert_close, assert_same, cotangent, host
from conftest import XP
from forms import ATTENTIONS
from hypothesis import given
from op_cases import draw

from minisum.mixers.attention import Attention
from minisum.params import Params, flatten


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("name", POOLED)
@given(case=draw())
def test_nothing_under_the_mask_survives(name, poison, case):
    op = POOLED[name]
    x, mask = case.normal("B n d"), case.mask()
    clean, back_clean = op(XP.where(mask[:, :, None], x, 0), mask)
    y, back = op(XP.where(mask[:, :, None], x, poison), mask)
    assert_same(y, clean)
    dy = cotangent(case, y)
    dx, _ = back(dy)
    assert_same(dx, back_clean(dy)[0])
    assert (host(dx)[~host(mask)] == 0).all()
    assert (host(dx)[host(mask)] != 0).all() or name == "cumsum_tokens"


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e300])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ATTENTIONS)
@given(case=draw())
def test_no_masked_key_survives(name, causal, poison, case):
    op = ATTENTIONS[name]
    q, k, v, mask = (
        case.normal("B H n h"),
        case.normal("B H n h"),
        case.normal("B H n d"),
        case.mask(),
    )
    real = mask[:, None, :, None]
    clean, back_clean = op(q, XP.where(real, k, 0), XP.where(real, v, 0), mask, causal)
    y, back = op(q, XP.where(real, k, poison), XP.where(real, v, poison), mask, causal)
    assert_same(y, clean)
    dy = cotangent(case, y)
    for gradient, wanted in zip(back(dy)[:3], back_clean(dy)[:3], strict=True):
        assert_same(gradient, wanted)
    _, dk, dv, _ = (host(g) for g in (*back(dy)[:3], XP.zeros(1)))
    padding = ~np.broadcast_to(host(real), dk.shape)
    assert (dk[padding] == 0).all()
    assert (dv[~np.broadcast_to(host(real), dv.shape)] == 0).all()


@pytest.mark.parametrize("name", ATTENTIONS)
@given(case=draw())
def test_a_query_without_a_key_gives_zero_both_ways(name, case):
    q, k, v = case.normal("B H n h"), case.normal("B H n h"), case.normal("B H n d")
    mask = host(case.mask()).copy()
    mask[0] = False
    y, back = ATTENTIONS[name](q, k, v, XP.asarray(mask))
    assert (host(y)[0] == 0).all()
    for gradient in back(cotangent(case, y))[:3]:
        assert (host(gradient)[0] == 0).all() and np.isfinite(host(gradient)).all()


@given(case=draw(n=(2, 7)))
def test_causal_queries_before_the_first_key_give_zero(case):
    """With padding on the left, the padding's own queries see nothing."""
    arrays = [case.normal("B H n h") for _ in range(3)]
    mask = np.ones((case.B, case.n), bool)
    mask[:, 0] = False
    for op in ATTENTIONS.values():
        y, back = op(*arrays, XP.asarray(mask), True)
        assert (host(y)[:, :, 0] == 0).all() and (host(y)[:, :, 1:] != 0).all()
        dq = host(back(cotangent(case, y))[0])
        assert (dq[:, :, 0] == 0).all() and np.isfinite(dq).all()


@pytest.mark.parametrize("name", POOLED)
@given(case=draw())
def test_all_padding_gives_zeros_both_ways(name, case):
    x = case.normal("B n d")
    y, back = POOLED[name](x, XP.zeros((case.B, case.n), bool))
    assert not host(y).any()
    assert not host(back(cotangent(case, y))[0]).any()


@pytest.mark.parametrize("n", [0, 1])
def test_no_token_at_all(n):
    """A text of length 0, as a row of padding or as an array without columns."""
    x, mask = XP.ones((2, n, 3)), XP.zeros((2, n), bool)
    for op in POOLED.values():
        for m in (mask, None) if n == 0 else (mask,):
            y, back = op(x, m)
            assert not host(y).any()
            assert back(XP.ones_like(y))[0].shape == x.shape
    for op in ATTENTIONS.values():
        y, back = op(x[:, None], x[:, None], x[:, None], mask)
        assert not host(y).any()
        assert [g.shape for g in back(XP.ones_like(y))[:3]] == [(2, 1, n, 3)] * 3


def padded(case, array, axis, front, end):
    """`array` with random numbers before and after along `axis`."""
    shape = list(array.shape)
    parts = []
    for count in (front, None, end):
        shape[axis] = count
        parts.append(array if count is None else XP.asarray(case.rng.normal(size=shape)))
    return XP.concatenate(parts, axis=axis)


def padded_mask(mask, front, end):
    rows = len(mask)
    return XP.concatenate(
        [XP.zeros((rows, front), bool), mask, XP.zeros((rows, end), bool)], axis=1
    )


@pytest.mark.parametrize("name", POOLED)
@given(case=draw(d=(2, 6), n=(1, 40), p=(0, 9), q=(0, 9)))
def test_padding_changes_no_bit_of_a_pool(name, case):
    """NumPy adds the rows of a C-ordered (n, d) one after the other, and adding 0 changes nothing.

    With d = 1, or in another memory order, it adds pairwise in eights, and padding moves the
    tokens to other partial sums: see the next test.
    """
    if XP is not np:
        pytest.skip("a GPU adds in an order that depends on the length")
    x, mask = XP.ascontiguousarray(case.normal("B n d")), case.mask()
    y, back = POOLED[name](x, mask)
    longer = padded(case, x, 1, case.p, case.q), padded_mask(mask, case.p, case.q)
    y_longer, back_longer = POOLED[name](*longer)
    real = slice(case.p, case.p + case.n)
    if name == "cumsum_tokens":
        dy = cotangent(case, y_longer)
        assert_same(y_longer[:, real], y)
        return
    assert_same(y_longer, y)
    dy = cotangent(case, y)
    dx_longer = back_longer(dy)[0]
    assert_same(dx_longer[:, real], back(dy)[0])
    assert not host(dx_longer[:, : case.p]).any() and not host(dx_longer[:, real.stop :]).any()


@pytest.mark.parametrize("name", POOLED)
@given(case=draw(n=(1, 40), p=(0, 9), q=(0, 9)))
def test_padding_changes_no_pool(name, case):
    x, mask = case.normal("B n d"), case.mask()
    y, _ = POOLED[name](x, mask)
    y_longer, _ = POOLED[name](
        padded(case, x, 1, case.p, case.q), padded_mask(mask, case.p, case.q)
    )
    if name == "cumsum_tokens":
        y_longer = y_longer[:, case.p : case.p + case.n]
    assert_close(y_longer, y)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ATTENTIONS)
@given(case=draw(p=(0, 5), q=(0, 5)))
def test_padding_changes_no_attention(name, causal, case):
    """But for rounding: a matrix product adds in an order that depends on its sizes."""
    op = ATTENTIONS[name]
    arrays = [case.normal("B H n h") for _ in range(3)]
    mask = case.mask()
    y, back = op(*arrays, mask, causal)
    longer = [padded(case, a, 2, case.p, case.q) for a in arrays]
    y_longer, back_longer = op(*longer, padded_mask(mask, case.p, case.q), causal)
    real = slice(case.p, case.p + case.n)
    assert_close(y_longer[:, :, real], y)
    dy = cotangent(case, y)
    dy_longer = XP.zeros(y_longer.shape)
    dy_longer[:, :, real] = dy
    for gradient, wanted in zip(back_longer(dy_longer)[:3], back(dy)[:3], strict=True):
        assert_close(gradient[:, :, real], wanted)
        assert not host(gradient[:, :, : case.p]).any()
        assert not host(gradient[:, :, real.stop :]).any()


@given(case=draw())
def test_an_example_alone_equals_itself_in_a_batch(case):
    x, mask = case.normal("B n d"), case.mask()
    for op in POOLED.values():
        y, back = op(x, mask)
        dy = cotangent(case, y)
        dx, _ = back(dy)
        for b in range(case.B):
            alone, back_alone = op(x[b : b + 1], mask[b : b + 1])
            assert_close(alone, y[b : b + 1])
            assert_close(back_alone(dy[b : b + 1])[0], dx[b : b + 1])
    q, k, v = (case.normal("B H n h") for _ in range(3))
    for op in ATTENTIONS.values():
        y, _ = op(q, k, v, mask)
        for b in range(case.B):
            one = slice(b, b + 1)
            assert_close(op(q[one], k[one], v[one], mask[one])[0], y[one])


@given(case=draw(), causal=...)
def test_the_attention_mixer_ignores_padding(case, causal: bool):
    """Projections have biases: a masked token's key is not zero, and must be masked after them."""
    mixer = Attention(case.H * case.h, case.H, causal=causal)
    params = Params.from_arrays(mixer.init(case.rng), XP, "float64")
    params.vector += XP.asarray(case.rng.normal(size=params.vector.shape))
    case.sizes["w"] = case.H * case.h
    x, mask = case.normal("B n w"), case.mask()
    results = []
    for poison in (0.0, math.nan):
        y, back = mixer(params, XP.where(mask[:, :, None], x, poison), mask)
        real = XP.where(mask[:, :, None], y, 0)
        dy = XP.where(mask[:, :, None], XP.ones(y.shape) * XP.arange(1.0, y.shape[-1] + 1), 0)
        dx, dparams = back(dy)
        assert not host(dx)[~host(mask)].any()
        results.append([real, dx, *flatten(dparams).values()])
    for a, b in zip(*results, strict=True):
        assert_same(a, b)
