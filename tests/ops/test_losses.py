"""What counts in a loss, what is ignored, and how the losses of shards add up."""

import math

import numpy as np
import pytest
from agreement import arrays_only, assert_close, host
from conftest import XP
from hypothesis import given
from op_cases import SMOOTH, draw

from minisum import ops


@given(case=draw())
def test_ignored_targets_count_for_nothing(case):
    logits, targets = case.normal("B n V"), host(case.ids("B n", case.V)).copy()
    ignored = case.rng.random(targets.shape) < 0.4
    targets[ignored] = -1
    loss, back = ops.cross_entropy(logits, XP.asarray(targets))
    dlogits = host(back(1.0)[0])
    assert not dlogits[ignored].any()
    if ignored.all():
        assert float(loss) == 0 and not dlogits.any()
        return
    rest, back_rest = ops.cross_entropy(
        XP.asarray(host(logits)[~ignored]), XP.asarray(targets[~ignored])
    )
    assert_close(loss, rest)
    assert_close(dlogits[~ignored], back_rest(1.0)[0])
    assert (np.abs(dlogits[~ignored].sum(axis=-1)) < 1e-15).all()


def test_all_targets_ignored():
    for poison in (0.0, math.nan, 1e300):
        loss, back = ops.cross_entropy(XP.full((2, 3), poison), XP.asarray([-1, -1]))
        assert float(loss) == 0 and not host(back(1.0)[0]).any()


def test_another_number_may_mean_ignored():
    logits = XP.asarray([[1.0, 2.0], [3.0, 1.0]])
    loss, _ = ops.cross_entropy(logits, XP.asarray([0, 1]), ignore=1)
    assert_close(loss, ops.cross_entropy(logits[:1], XP.asarray([0]))[0])


LOSSES = {
    "cross_entropy": lambda c: (ops.cross_entropy, c.normal("B V"), c.ids("B", c.V, -1)),
    "binary_cross_entropy": lambda c: (
        ops.binary_cross_entropy, c.normal("B n"), c.uniform("B n", 0, 1)),
    "mean_squared_error": lambda c: (ops.mean_squared_error, c.normal("B n"), c.normal("B n")),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
@given(case=draw(B=(1, 6)))
def test_the_losses_of_shards_add_up(name, case):
    op, y, targets = LOSSES[name](case)
    count = int((host(targets) != -1).sum()) if name == "cross_entropy" else y.size
    whole, back_whole = op(y, targets)
    cut = int(case.rng.integers(0, case.B + 1))
    total, gradients = 0.0, []
    for rows in (slice(0, cut), slice(cut, None)):
        loss, back = op(y[rows], targets[rows], total=max(1, count))
        total = total + loss
        gradients.append(back(1.0)[0])
    assert_close(total, whole)
    assert_close(XP.concatenate(gradients), back_whole(1.0)[0])


@pytest.mark.parametrize("name", [*LOSSES, "linear_cross_entropy", "linear_cross_entropy b"])
@given(case=draw())
def test_the_gradient_of_a_loss_scales_with_what_it_is_given(name, case):
    """1.0, with which every training step begins, and others: as numbers and as arrays."""
    op, *arrays = (LOSSES.get(name) or SMOOTH["linear_cross_entropy"])(case)
    if name == "linear_cross_entropy":
        arrays[2] = None
    _, back = op(*arrays)
    wanted = [2.0 * g for g in arrays_only(back(XP.asarray(0.5)))]
    for dloss in (1.0, 2.0, 0.0, XP.asarray(1.0)):
        gradients = back(dloss)
        assert [g is None for g in gradients] == [g is None for g in back(0.5)]
        for gradient, g in zip(arrays_only(gradients), wanted, strict=True):
            assert_close(gradient, float(dloss) * g)
