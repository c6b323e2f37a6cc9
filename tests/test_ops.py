"""Every op's gradient, proved: exactly where it is piecewise linear, by differences where smooth."""

from functools import partial

import numpy as np
import pytest
from conftest import XP
from hypothesis import given

from minisum import ops
from minisum.gradcheck import gradcheck
from minisum.ops.activations import erf
from minisum.strategies import cases

SIZES = {"B": (1, 3), "n": (1, 7), "d": (1, 6), "o": (1, 5), "V": (2, 6), "H": (1, 3), "h": (1, 4)}


def draw(**ranges):
    return cases(XP, **(SIZES | ranges))


def named(op, **constants):
    """`op` with its plain arguments bound, keeping its name for messages."""
    bound = partial(op, **constants)
    bound.__name__ = op.__name__
    return bound


EXACT = {
    "linear": lambda c: (ops.linear, c.grid("B n d"), c.grid("o d"), c.grid("o")),
    "linear without bias": lambda c: (ops.linear, c.grid("B d"), c.grid("o d")),
    "embed": lambda c: (ops.embed, c.ids("B n", c.V), c.grid("V d")),
    "modulate": lambda c: (named(ops.modulate, bias=2.0), c.grid("B n d"), c.grid("n d")),
    "add_positions": lambda c: (ops.add_positions, c.grid("B n d"), c.grid("n d")),
    "relu": lambda c: (ops.relu, c.grid("B n d")),
    "sum_tokens": lambda c: (ops.sum_tokens, c.grid("B n d"), c.mask()),
    "sum_tokens without mask": lambda c: (ops.sum_tokens, c.grid("B n d")),
    "cumsum_tokens": lambda c: (ops.cumsum_tokens, c.grid("B n d"), c.mask()),
    "cumsum_tokens without mask": lambda c: (ops.cumsum_tokens, c.grid("B n d")),
    "dropout": lambda c: (named(ops.dropout, rate=0.5), c.grid("B n d"), c.keep("B 1 d")),
    "split_heads": lambda c: (named(ops.split_heads, heads=c.H), c.grid("B n 12")[..., : c.H * c.h]),
    "merge_heads": lambda c: (ops.merge_heads, c.grid("B H n h")),
}


def attention_case(op, causal, masked, **constants):
    def make(c):
        arrays = [c.normal("B H n h"), c.normal("B H n h"), c.normal("B H n o")]
        return named(op, causal=causal, **constants), *arrays, c.mask() if masked else None

    return make


SMOOTH = {
    "gelu": lambda c: (ops.gelu, c.normal("B n d", 2.0)),
    "sigmoid": lambda c: (ops.sigmoid, c.normal("B n d", 2.0)),
    "silu": lambda c: (ops.silu, c.normal("B n d", 2.0)),
    "softplus": lambda c: (ops.softplus, c.normal("B n d", 2.0)),
    "mean_tokens": lambda c: (ops.mean_tokens, c.normal("B n d"), c.mask()),
    "mean_tokens by root": lambda c: (named(ops.mean_tokens, power=0.5), c.normal("B n d"), c.mask()),
    "mean_tokens without mask": lambda c: (ops.mean_tokens, c.normal("B n d")),
    "layer_norm": lambda c: (
        named(ops.layer_norm, eps=0.1), c.normal("B n d"), c.normal("d"), c.normal("d")
    ),
    "rms_norm": lambda c: (named(ops.rms_norm, eps=0.1), c.normal("B n d"), c.normal("d")),
    "attention": attention_case(ops.attention, False, False),
    "attention masked": attention_case(ops.attention, False, True),
    "attention causal": attention_case(ops.attention, True, False),
    "attention causal masked": attention_case(ops.attention, True, True),
    "attention_blocked": attention_case(ops.attention_blocked, False, True, block=2),
    "attention_blocked causal": attention_case(ops.attention_blocked, True, True, block=3),
    "cross_entropy": lambda c: (ops.cross_entropy, c.normal("B n V", 2.0), c.ids("B n", c.V, -1)),
    "cross_entropy of a shard": lambda c: (
        named(ops.cross_entropy, total=17), c.normal("B V", 2.0), c.ids("B", c.V)
    ),
    "binary_cross_entropy": lambda c: (
        ops.binary_cross_entropy, c.normal("B n", 3.0), c.uniform("B n", 0, 1)
    ),
    "mean_squared_error": lambda c: (ops.mean_squared_error, c.normal("B n"), c.normal("B n")),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
@given(case=draw())
def test_gradient_is_exact(name, case):
    op, *arrays = EXACT[name](case)
    verdict = gradcheck(op, *arrays, exact=True, seed=case.seed)
    # A grid point at zero is a kink of ReLU: skipping it is right, and all may be zero.
    assert not verdict.mismatches, verdict
    assert verdict or verdict.kinks or 0 in arrays[0].shape, verdict


@pytest.mark.parametrize("name", SMOOTH)
@given(case=draw())
def test_gradient_agrees_with_differences(name, case):
    op, *arrays = SMOOTH[name](case)
    assert gradcheck(op, *arrays, seed=case.seed)


def test_every_op_is_checked():
    checked = {name.split()[0] for name in EXACT | SMOOTH}
    assert checked == set(ops.__all__)


@given(case=draw())
def test_a_layer_norm_without_eps_room(case):
    """The default eps with vectors of ordinary size; two entries at least, or the output is flat."""
    x = case.normal("B n 6")
    assert gradcheck(ops.layer_norm, x, case.normal("6"), case.normal("6"), tolerance=1e-6)
    assert gradcheck(ops.rms_norm, x, case.normal("6"), tolerance=1e-6)
