"""The objective of token statistics attention: what it bounds, and whose gradient step it is."""

import numpy as np
from conftest import XP
from hypothesis import given
from op_cases import draw

from minisum import ops
from minisum.backend import to_numpy
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
