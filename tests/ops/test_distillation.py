"""The loss that brings linear attention's weights near softmax's."""

import numpy as np
from agreement import assert_close, host
from conftest import XP
from hypothesis import given
from op_cases import draw

from minisum import ops


def features(case):
    return case.uniform("B H n h", 0.1, 1), case.uniform("B H n h", 0.1, 1)


@given(case=draw())
def test_its_weights_are_those_of_kernel_attention(case):
    """Read off there with one-hot values."""
    q, k = features(case)
    wanted, mask = case.uniform("B H n n", 0, 1), XP.ones((case.B, case.n), bool)
    one_hot = XP.broadcast_to(XP.eye(case.n), wanted.shape)
    (p, _), _ = ops.kernel_attention(q, k, one_hot, eps=0)
    loss, _ = ops.kernel_cross_entropy(q, k, wanted, mask, eps=0)
    assert_close(loss, -(wanted * XP.log(p)).sum() / (case.B * case.H * case.n))


@given(case=draw(n=(2, 7)))
def test_it_is_least_where_the_weights_agree(case):
    """There its gradient is nothing, and any other features weigh worse."""
    (q, k), mask = features(case), case.mask()
    S = XP.where(mask[:, None, None], q @ k.swapaxes(-1, -2) + 1e-6, 0)
    weights = S / XP.where(S.any(axis=-1, keepdims=True), S.sum(axis=-1, keepdims=True), 1)
    least, back = ops.kernel_cross_entropy(q, k, weights, mask)
    dq, dk, *_ = back(1.7)
    assert np.abs(host(dq)).max() < 1e-12 and np.abs(host(dk)).max() < 1e-12
    other, _ = ops.kernel_cross_entropy(*features(case), weights, mask)
    assert float(other) >= float(least) - 1e-12


def test_padding_adds_nothing():
    """Neither tokens nor weights there, nor NaN; a text of padding alone counts for nothing."""
    rng = np.random.default_rng(0)
    q, k = XP.asarray(rng.uniform(0, 1, (2, 3, 2, 5, 4)))
    weights = XP.asarray(rng.uniform(0, 1, (3, 2, 5, 5)))
    mask = XP.asarray(np.arange(5) < np.array([[5], [3], [0]]))
    loss, back = ops.kernel_cross_entropy(q, k, weights, mask)
    gap = ~mask[:, None, :, None]
    q, k = (XP.where(gap, XP.nan, a) for a in (q, k))
    weights = XP.where(gap | gap.swapaxes(-1, -2), XP.nan, weights)
    again, back_again = ops.kernel_cross_entropy(q, k, weights, mask)
    assert float(loss) == float(again)
    for first, second in zip(back(1.3)[:3], back_again(1.3)[:3], strict=True):
        np.testing.assert_array_equal(host(first), host(second))
    alone, _ = ops.kernel_cross_entropy(q[1:2, :, :3], k[1:2, :, :3], weights[1:2, :, :3, :3],
                                        mask[1:2, :3], total=16)  # fmt: skip
    first, _ = ops.kernel_cross_entropy(q[:1], k[:1], weights[:1], mask[:1], total=16)
    assert_close(first + alone, loss)
