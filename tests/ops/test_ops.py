"""Every op's gradient, in each form: exact where piecewise linear, else by differences."""

import numpy as np
import pytest
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
    # One direction through all numbers tells; where it meets a kink, single entries must.
    entries = 12 if form in EXACT else 1
    verdict = gradcheck(op, *arrays, exact=form in EXACT, seed=case.seed, entries=entries)
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


class Table(np.ndarray):
    """Reads rows by the platform's own integers alone, as NumPy does with 32-bit indices."""

    def take(self, indices, **options):
        assert indices.dtype == np.intp
        return super().take(indices, **options)


@pytest.mark.parametrize("form", ("embed", "direct_summation", "direct_summation.plain"))
def test_ids_of_any_width_can_be_read_where_indices_have_32_bits(form):
    """In a browser int64 is wider than an index, which `take` refuses; here int32 is another."""
    ids, table = np.array([[3, 1, 3], [0, 2, 1]], np.int32), np.arange(8.0).reshape(4, 2)
    more = () if form == "embed" else (np.ones((3, 2)), 1.0, np.ones((2, 2)))
    op = getattr(ops, form.partition(".")[0])
    op = op.plain if "." in form else op
    y, back = op(ids, table.view(Table), *more)
    expected, _ = op(ids.astype(np.int64), table, *more)
    assert np.array_equal(y, expected) and back(np.ones_like(y))
