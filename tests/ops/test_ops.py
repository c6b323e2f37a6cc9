"""Every op's gradient, proved: exact where piecewise linear, by differences where smooth."""

import pytest
from conftest import XP
from hypothesis import given
from op_cases import EXACT, SMOOTH, draw

from minisum import ops
from minisum.gradcheck import gradcheck
from minisum.ops.chunks import split_chunks


@pytest.mark.parametrize("name", EXACT)
@given(case=draw())
def test_gradient_is_exact(name, case):
    op, *arrays = EXACT[name](case)
    verdict = gradcheck(op, *arrays, exact=True, seed=case.seed)
    # A grid point at zero is a kink of ReLU: skipping it is right, and all may be zero.
    assert not verdict.mismatches, verdict
    assert verdict or verdict.kinks or 0 in arrays[0].shape, verdict


@pytest.mark.parametrize("name", [n for n in EXACT if n.startswith("direct_summation")])
@given(case=draw())
def test_gradient_of_a_text_in_stretches(name, monkeypatch, case):
    """Stretches of one token: what a batch owes is the sum of what they owe."""
    monkeypatch.setattr("minisum.ops.fused.CACHED", 1)
    op, *arrays = EXACT[name](case)
    verdict = gradcheck(op, *arrays, exact=True, seed=case.seed)
    assert not verdict.mismatches, verdict


@pytest.mark.parametrize("name", SMOOTH)
@given(case=draw())
def test_gradient_agrees_with_differences(name, case):
    op, *arrays = SMOOTH[name](case)
    assert gradcheck(op, *arrays, seed=case.seed)


@pytest.mark.parametrize("name", [n for n in SMOOTH if n.startswith(("causal_pro", "delta_rule"))])
@given(case=draw())
def test_gradient_of_a_text_in_pieces(name, monkeypatch, case):
    """Pieces and, in them, chunks of a few tokens; the state's gradient goes through them all."""
    monkeypatch.setattr("minisum.ops.chunks.PIECE", 3)
    op, *arrays = SMOOTH[name](case)
    assert gradcheck(op, *arrays, seed=case.seed)


def test_every_op_is_checked():
    checked = {name.split()[0] for name in EXACT | SMOOTH}
    assert checked == set(ops.__all__)


@given(case=draw())
def test_a_layer_norm_without_eps_room(case):
    """The default eps with vectors of ordinary size; two entries at least, or all is flat."""
    x = case.normal("B n 6")
    assert gradcheck(ops.layer_norm, x, case.normal("6"), case.normal("6"), tolerance=1e-6)
    assert gradcheck(ops.rms_norm, x, case.normal("6"), tolerance=1e-6)


@given(case=draw())
def test_a_normed_vector_has_mean_zero_and_variance_one(case):
    """Which no gradient can tell: a norm to another size has a right gradient of its own."""
    x = case.normal("B n 6")
    centred, _ = ops.layer_norm(x, XP.ones(6), XP.zeros(6), eps=0.0)
    assert float(abs(centred.mean(axis=-1)).max()) < 1e-12
    assert float(abs((centred**2).mean(axis=-1) - 1).max()) < 1e-9
    scaled, _ = ops.rms_norm(x, XP.ones(6), eps=0.0)
    assert float(abs((scaled**2).mean(axis=-1) - 1).max()) < 1e-9


def test_a_text_is_cut_into_no_more_chunks_than_it_fills():
    shapes = [split_chunks(XP.ones((1, 2, n, 3)), 4).shape for n in (1, 4, 5, 8)]
    assert shapes == [(1, 2, chunks, 4, 3) for chunks in (1, 1, 2, 2)]
