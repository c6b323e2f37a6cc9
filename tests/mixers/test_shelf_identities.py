"""Equations that tie the mixers of the second shelf to the first, and to what their papers say."""

import numpy as np
import pytest
from conftest import XP
from hypothesis import given
from mixer_forms import close, same

from minisum import mixers, ops
from minisum.params import Params
from minisum.strategies import cases

pytestmark = pytest.mark.usefixtures("short_chunks")

sizes = cases(XP, B=(1, 2), n=(1, 9), H=(1, 2), h=(1, 4), d=(1, 4))


def qkv(case):
    return case.normal("B H n h"), case.normal("B H n h"), case.normal("B H n d")


def build(name, case, **options):
    """A mixer of four numbers a head, its first values, and tokens."""
    mixer = mixers.build(name, width=4 * case.H, heads=case.H, max_len=16, **options)
    params = Params.from_arrays(mixer.init(np.random.default_rng(case.seed)), XP, "float64")
    return mixer, params, XP.asarray(case.rng.normal(size=(case.B, case.n, mixer.width)))


@given(case=sizes)
def test_a_window_as_long_as_the_text_is_attention(case):
    for causal in (False, True):
        window, params, x = build("window", case, window=case.n, causal=causal)
        attention, _, _ = build("attention", case, causal=causal)
        (y, back), (wanted, back_wanted) = window(params, x), attention(params, x)
        close(y, wanted)
        dy = XP.asarray(case.rng.normal(size=x.shape))
        close(back(dy)[0], back_wanted(dy)[0])


@given(case=sizes)
def test_a_window_of_one_token_is_its_value(case):
    q, k, v = qkv(case)
    for causal in (False, True):
        y, back = ops.window_attention(q, k, v, None, 1, causal)
        same(y, v)
        dq, dk, dv, _ = back(case.normal("B H n d"))
        assert not dq.any() and not dk.any() and dv.any()


@given(case=cases(XP, B=(1, 2), n=(4, 9), H=(1, 2), h=(1, 4), d=(1, 4)))
def test_a_window_forgets_what_left_it(case):
    """A token changes the outputs of the w tokens from itself on, and no others by one bit."""
    q, k, v = qkv(case)
    s, w = int(case.rng.integers(0, case.n)), 2
    before, _ = ops.window_attention(q, k, v, None, w, True)
    k, v = k.copy(), v.copy()
    k[:, :, s], v[:, :, s] = 1.0, 2.0
    after, _ = ops.window_attention(q, k, v, None, w, True)
    same(after[:, :, :s], before[:, :, :s])
    same(after[:, :, s + w :], before[:, :, s + w :])
    assert (after[:, :, s : s + w] != before[:, :, s : s + w]).any(axis=-1).all()


@given(case=sizes)
def test_blocks_attend_on_their_own(case):
    q, k, v = qkv(case)
    y, _ = ops.window_attention(q, k, v, None, 3, False)
    for start in range(0, case.n, 3):
        block = slice(start, start + 3)
        close(y[:, :, block], ops.attention(q[:, :, block], k[:, :, block], v[:, :, block])[0])
