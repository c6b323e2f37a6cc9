"""The objective of token statistics attention: what it bounds, and whose gradient step it is."""

import numpy as np
import pytest
from conftest import XP
from hypothesis import given
from op_cases import draw

from minisum import mixers, ops
from minisum.backend import to_numpy
from minisum.mixers.base import from_heads
from minisum.mixers.tssa import token_statistics


def members(w, tau, mask):
    """The memberships that `token_statistics` gives its tokens, read off its output."""
    logits = tau[:, None] * (w * w / (w * w).sum(axis=2, keepdims=True)).sum(axis=-1)
    weights = XP.exp(logits - logits.max(axis=1, keepdims=True))
    return XP.where(mask[:, None], weights / weights.sum(axis=1, keepdims=True), 0)


@given(c=draw(n=(2, 7), H=(2, 3)))
def test_token_statistics_are_a_gradient_step_on_the_bound(c):
    """o = -∂R̄/∂w with memberships held fixed, entry by entry, bit by bit."""
    w, tau = c.normal("B H n h"), c.uniform("H", 0.5, 2)
    mask = XP.ones((c.B, c.n), bool)
    membership = members(w, tau, mask)
    step, _ = token_statistics(w, tau)
    _, back = ops.coding_rate_bound(w, membership)
    dw, _ = back(-XP.ones(c.B))
    np.testing.assert_array_equal(to_numpy(step), to_numpy(dw))


@pytest.mark.parametrize("causal", (False, True))
def test_a_mixer_tells_its_memberships(causal):
    """w, o and Π are those of its own forward pass: o (1 + D) = -w Π."""
    rng = np.random.default_rng(0)
    mixer = mixers.build("tssa", width=6, heads=3, max_len=5, causal=causal)
    params = mixer.init(rng)
    params["temperature"] = rng.uniform(0.5, 2, 3)
    if causal:
        params["positions"] = rng.normal(size=(5, 3))
    x = rng.normal(size=(2, 5, 6))
    w, o, pi = mixer.memberships(params, x)
    y, _ = mixer(params, x)
    np.testing.assert_array_equal(from_heads(params["o"], o)[0], y)
    np.testing.assert_allclose(pi.sum(axis=1), 1, rtol=1e-12)
    weights = pi[..., None]
    spread, total = weights * w * w, weights
    if causal:
        spread, total = spread.cumsum(axis=2), total.cumsum(axis=2)
    else:
        spread, total = (part.sum(axis=2, keepdims=True) for part in (spread, total))
    np.testing.assert_allclose(-o * (1 + spread / (total + 1e-8)), w * weights, rtol=1e-12)


@given(c=draw(n=(1, 7)))
def test_the_bound_is_never_below_the_rate(c):
    w, membership = c.normal("B H n h"), c.uniform("B H n", 0, 1)
    rate, bound = (
        to_numpy(op(w, membership)[0]) for op in (ops.coding_rate, ops.coding_rate_bound)
    )
    assert (bound >= rate - 1e-12).all() and (rate >= 0).all()
    if c.h == 1:
        np.testing.assert_allclose(bound, rate, rtol=1e-12)


def test_the_bound_is_the_rate_where_no_channels_vary_together():
    w = XP.asarray(np.diag([1.0, 2.0, 3.0])[None, None])
    membership = XP.asarray([[[0.5, 1.0, 0.25]]])
    rate, bound = ops.coding_rate(w, membership)[0], ops.coding_rate_bound(w, membership)[0]
    np.testing.assert_allclose(to_numpy(rate), to_numpy(bound), rtol=1e-12)
    by_hand = 0.5 * 1.75 * np.log1p(np.array([0.5, 4.0, 2.25]) / 1.75).sum()
    np.testing.assert_allclose(to_numpy(bound), by_hand, rtol=1e-7)


@given(c=draw(n=(1, 7)))
def test_padding_takes_no_nats(c):
    w, membership = c.normal("B H n h"), c.uniform("B H n", 0, 1)
    more = XP.concatenate([w, c.normal("B H 2 h")], axis=2)
    none = XP.concatenate([membership, XP.zeros((c.B, c.H, 2))], axis=2)
    for op in (ops.coding_rate, ops.coding_rate_bound):
        (short, _), (long, back) = op(w, membership), op(more, none)
        np.testing.assert_allclose(to_numpy(short), to_numpy(long), rtol=1e-12)
        assert not to_numpy(back(XP.ones(c.B))[0])[:, :, c.n :].any()
