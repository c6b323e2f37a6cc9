"""Every op's gradient, in each form: exact where piecewise linear, else by differences."""

from conftest import XP
from forms import OPS, every_form
from hypothesis import given
from op_cases import EXACT, draw

from minisum import ops
from minisum.fast.chunks import split
from minisum.gradcheck import gradcheck


@every_form
@given(case=draw())
def test_gradient(form, case):
    """Exact (==) or by differences; a grid point at zero is a kink of ReLU, and all may be zero."""
    op, *arrays = OPS[form](case)
    verdict = gradcheck(op, *arrays, exact=form in EXACT, seed=case.seed)
    assert not verdict.mismatches, verdict
    assert verdict or verdict.kinks or 0 in arrays[0].shape, verdict


def test_every_op_is_checked():
    checked = {name.split()[0] for name in OPS}
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
    shapes = [split(XP.ones((1, 2, n, 3)), 4).shape for n in (1, 4, 5, 8)]
    assert shapes == [(1, 2, chunks, 4, 3) for chunks in (1, 1, 2, 2)]
