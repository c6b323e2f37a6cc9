"""What is stored is float16, what adds up is not."""

import numpy as np
import pytest
from agreement import arrays_only, assert_same, each, host
from conftest import XP

from minisum import ops

HALF = {
    "sum_tokens": lambda x: ops.sum_tokens(x),
    "mean_tokens": lambda x: ops.mean_tokens(x),
    "cumsum_tokens": lambda x: ops.cumsum_tokens(x),
    "mean_squared_error": lambda x: ops.mean_squared_error(x, x * 0, total=1),
    "binary_cross_entropy": lambda x: ops.binary_cross_entropy(x, x * 0, total=1),
    "cross_entropy": lambda x: ops.cross_entropy(
        x.reshape(-1, x.shape[-1]), XP.zeros(x.shape[0] * x.shape[1], int)
    ),
    "linear": lambda x: ops.linear(x, x[0, :5] * 0 + 1, x[0, 0, :1] * 0 + XP.ones(5, x.dtype)),
    "embed": lambda x: ops.embed(XP.zeros(x.shape[:2], int), x[0, :3]),
    "add_positions": lambda x: ops.add_positions(x.transpose(1, 0, 2), x[0, :1]),
    "modulate": lambda x: ops.modulate(x.transpose(1, 0, 2), x[0, :1], 1.0),
    "layer_norm": lambda x: ops.layer_norm(x, x[0, 0] * 0 + 1, x[0, 0] * 0),
    "rms_norm": lambda x: ops.rms_norm(x, x[0, 0] * 0 + 1),
    "attention": lambda x: ops.attention(x[:, None, :64], x[:, None] / 4, x[:, None]),
    "attention_blocked": lambda x: ops.attention_blocked(
        x[:, None, :64], x[:, None] / 4, x[:, None]
    ),
}


@pytest.mark.parametrize("name", HALF)
def test_float16_adds_up_in_float32(name):
    """Over 8,192 tokens; added in float16, 1 + 1 + 1 + ... stops at 2,048."""
    rng = np.random.default_rng(8192)
    narrow = XP.asarray(rng.uniform(0.5, 2.0, (1, 8192, 6)).astype("float16"))
    y, back = HALF[name](narrow)
    reference, back_reference = HALF[name](narrow.astype("float64"))
    assert_relative(y, reference)
    if "attention" in name:
        return  # a score's gradient, about 1/8192 of dy, is below what float16 can store
    dy = XP.asarray(rng.uniform(0.5, 1.0, y.shape)).astype("float16")
    if name in ("linear", "embed", "layer_norm", "rms_norm", "add_positions", "modulate"):
        dy = dy / 8  # the sums of the gradients stay below the largest float16, 65,504
    gradients = arrays_only(back(dy))
    for gradient, wanted in zip(
        gradients, arrays_only(back_reference(dy.astype("float64"))), strict=True
    ):
        assert_relative(gradient, wanted)
    assert {gradient.dtype.name for gradient in gradients} == {"float16"}


def assert_relative(found, wanted):
    found, wanted = host(found).astype(np.float64), host(wanted)
    assert np.isfinite(found).all()
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert error < 2e-3, error


@pytest.mark.parametrize("name", ["running_sum", "decayed_sum", "causal_product"])
def test_a_float16_recurrence_remembers_in_float32(name):
    """And hands out float16."""
    rng = np.random.default_rng(8192)
    u = XP.asarray(rng.uniform(0.5, 2.0, (1, 8192, 6)).astype("float16"))
    head = u[:, None] / 16
    arrays = {
        "running_sum": (u, u[:, 0]),
        "decayed_sum": (u, -u / 1024, u[:, 0]),
        "causal_product": (head, head, head, -head[..., :1], head[:, :, :6]),
    }[name]
    op = getattr(ops, name)
    y, back = op(*arrays)
    reference, back_reference = op(*(a.astype("float64") for a in arrays))
    # So small that no gradient, some thousand times as large, is beyond float16.
    dy = each(lambda part: XP.asarray(rng.uniform(1 / 64, 1 / 32, part.shape)).astype("float16"), y)
    gradients = arrays_only(back(dy))
    assert {part.dtype for part in (*y, *gradients)} == {np.dtype("float16")}
    if name == "causal_product":
        return  # its last bits are lost in the products, not in the sums
    wanted = arrays_only(back_reference(each(lambda part: part.astype("float64"), dy)))
    for part, whole in zip([*y, *gradients], [*reference, *wanted], strict=True):
        assert_relative(part, whole)


def test_a_float16_mean_may_have_a_sum_beyond_float16():
    x = XP.full((1, 8192, 2), 16.0, "float16")
    assert_same(ops.mean_tokens(x)[0], XP.full((1, 2), 16.0, "float16"))
