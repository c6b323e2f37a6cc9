"""What must hold of every op without taking a single derivative.

The ops and their arguments come from the tables of test_ops.py, in random shapes, memory layouts
and masks. What holds of some of them has files of its own: test_masks.py, test_losses.py,
test_attention_forms.py, test_extreme_values.py.
"""

import math

import numpy as np
import pytest
from agreement import (
    OPS,
    arrays_only,
    assert_close,
    assert_same,
    cotangent,
    each,
    host,
    is_real,
    parts,
    size_of_terms,
)
from conftest import XP
from forms import every_form
from hypothesis import given
from op_cases import draw

from minisum import ops
from minisum.strategies import Case


@every_form
@given(case=draw())
def test_backward_and_memory(form, case):
    """Four things of one example: drawing it and running the op is most of the work."""
    op, *arrays = OPS[form](case)
    before = [None if a is None else a.copy() for a in arrays]
    y, back = op(*arrays)
    backward_twice_gives_the_same_bits(case, y, back)
    backward_is_linear(case, arrays, y, back)
    memory_layout_does_not_matter(case, op, arrays, y, back)
    types_are_kept_and_float32_is_near_float64(case, op, arrays)
    for a, b in zip(arrays, before, strict=True):
        assert a is None or (a == b).all(), "an argument was written to"


def backward_twice_gives_the_same_bits(case, y, back):
    """A second call, with another between; and it does not write to dy.

    A GPU's atomic additions come in any order, so there the last digit may differ.
    """
    dy = cotangent(case, y)
    kept = each(XP.copy, dy)
    first = [g.copy() for g in arrays_only(back(dy))]
    back(cotangent(case, y))
    for a, b in zip(first, arrays_only(back(dy)), strict=True):
        (assert_same if XP is np else assert_close)(a, b)
    for a, b in zip(parts(dy), parts(kept), strict=True):
        assert_same(a, b)


def backward_is_linear(case, arrays, y, back):
    u, v = cotangent(case, y), cotangent(case, y)
    both = each(lambda a, b: 2.5 * a - b, u, v)
    of_both, *of_each = (arrays_only(back(dy)) for dy in (both, u, v))
    terms = size_of_terms(arrays, of_both, y, both)
    for together, of_u, of_v in zip(of_both, *of_each, strict=True):
        assert_close(together, 2.5 * of_u - of_v, terms=terms)


def memory_layout_does_not_matter(case, op, arrays, y, back):
    plain, back_plain = op(*[None if a is None else XP.ascontiguousarray(a) for a in arrays])
    for found, part in zip(parts(y), parts(plain), strict=True):
        assert_close(found, part)
    dy = each(lambda u: case._finish(u) if u.ndim else u, cotangent(case, y))
    wanted = arrays_only(back_plain(each(XP.copy, dy)))
    terms = size_of_terms(arrays, wanted, y, dy)
    for gradient, g in zip(arrays_only(back(dy)), wanted, strict=True):
        assert_close(gradient, g, terms=terms)


def types_are_kept_and_float32_is_near_float64(case, op, arrays):
    narrow = [a.astype("float32") if is_real(a) else a for a in arrays]
    wide = [a.astype("float64") if is_real(a) else a for a in narrow]
    y, back = op(*narrow)
    reference, back_reference = op(*wide)
    for found, wanted in zip(parts(y), parts(reference), strict=True):
        assert found.dtype == "float32" and wanted.dtype == "float64"
        assert_close(found, wanted, "float32")
    dy = each(lambda u: u.astype("float32"), cotangent(case, y))
    gradients = arrays_only(back(dy))
    references = arrays_only(back_reference(each(lambda u: u.astype("float64"), dy)))
    assert len(gradients) == sum(is_real(a) for a in narrow)
    terms = size_of_terms(wide, references, reference, dy)
    for gradient, wanted in zip(gradients, references, strict=True):
        assert gradient.dtype == "float32"
        assert_close(gradient, wanted, "float32", terms)


@pytest.mark.parametrize(
    "name, seed, sizes",
    [("causal_product decayed by channel alike", 3328, "B=3 n=1 d=1 o=5 V=2 H=3 h=4"),
     ("kernel_attention causal", 280135, "B=3 n=6 d=1 o=5 V=2 H=1 h=1")],
)  # fmt: skip
def test_backward_is_linear_where_terms_cancel(name, seed, sizes):
    """Gradients of 1e-14 and of 1e-4, made of terms near 10 whose roundings they keep."""
    sizes = {letter: int(size) for letter, size in (pair.split("=") for pair in sizes.split())}
    case = Case(sizes, seed, XP)
    op, *arrays = OPS[name](case)
    backward_is_linear(case, arrays, *op(*arrays))


@pytest.mark.skipif(XP is np, reason="compares CuPy with NumPy: set MINISUM_TEST_BACKEND=cupy")
@every_form
@given(case=draw())
def test_the_device_agrees_with_the_host(form, case):
    op, *arrays = OPS[form](case)
    y, back = op(*arrays)
    reference, back_reference = op(*[None if a is None else host(a) for a in arrays])
    for found, part in zip(parts(y), parts(reference), strict=True):
        assert_close(found, part)
    dy = cotangent(case, y)
    wanted = arrays_only(back_reference(each(host, dy)))
    terms = size_of_terms(arrays, wanted, y, dy)
    for gradient, g in zip(arrays_only(back(dy)), wanted, strict=True):
        assert_close(gradient, g, terms=terms)


def test_a_slope_of_zero_at_zero():
    """ReLU at exactly 0 passes nothing back; so it does at -0."""
    y, back = ops.relu(XP.asarray([0.0, -0.0, 5e-324, -5e-324]))
    assert (host(back(XP.ones(4))) == [0, 0, 1, 0]).all()
    assert (host(y) == [0, 0, 5e-324, 0]).all()
    ids, one = XP.zeros((2, 3), int), XP.ones((3, 3))
    y, back = ops.direct_summation(ids, one, one, 1.0, one * 0)
    assert not any(host(g).any() for g in arrays_only(back(XP.ones_like(y))))


@given(case=draw())
def test_a_sum_does_not_know_the_order(case):
    x, mask = case.normal("B n d"), case.mask()
    order = case.rng.permutation(case.n)
    for op in (ops.sum_tokens, ops.mean_tokens):
        assert_close(op(x[:, order], mask[:, order])[0], op(x, mask)[0])
        assert_close(op(x[:, order])[0], op(x)[0])


@given(case=draw())
def test_the_last_of_a_running_sum_is_the_sum(case):
    x, mask = case.normal("B n d"), case.mask()
    assert_close(ops.cumsum_tokens(x, mask)[0][:, -1], ops.sum_tokens(x, mask)[0])


def changed_from(case, array, axis, t):
    """A copy whose tokens from t on are other numbers."""
    other = host(array).copy()
    future = (slice(None),) * axis + (slice(t, None),)
    other[future] = case.rng.normal(size=other[future].shape)
    return XP.asarray(other)


@given(case=draw(n=(2, 9)))
def test_no_causal_output_sees_the_future(case):
    """Bit for bit, and no gradient comes back from the past to the future."""
    t = int(case.rng.integers(1, case.n))
    x = XP.ascontiguousarray(case.normal("B n d"))
    y, back = ops.cumsum_tokens(x)
    assert_same(ops.cumsum_tokens(changed_from(case, x, 1, t))[0][:, :t], y[:, :t])
    dy = host(cotangent(case, y)).copy()
    dy[:, t:] = 0
    assert not host(back(XP.asarray(dy))[0])[:, t:].any()

    arrays = [XP.ascontiguousarray(case.normal("B H n h")) for _ in range(3)]
    others = [changed_from(case, a, 2, t) for a in arrays]
    y, back = ops.attention(*arrays, causal=True)
    assert_same(ops.attention(*others, causal=True)[0][:, :, :t], y[:, :, :t])
    dy = host(cotangent(case, y)).copy()
    dy[:, :, t:] = 0
    for gradient in back(XP.asarray(dy))[:3]:
        assert not host(gradient)[:, :, t:].any()


@given(case=draw())
def test_splitting_and_merging_heads_undo_each_other(case):
    x = case.normal("B H n h")
    merged, _ = ops.merge_heads(x)
    assert_same(ops.split_heads(merged, case.H)[0], x)
    for head in range(case.H):
        assert_same(merged[..., head * case.h : (head + 1) * case.h], x[:, head])


@given(case=draw())
def test_dropout_keeps_the_mean(case):
    x, keep = case.normal("B n d"), case.keep("B n d", 0.25)
    y, _ = ops.dropout(x, keep, 0.25)
    assert_close(y, XP.where(keep, x / 0.75, 0.0))
    poisoned = XP.where(keep, x, math.nan)
    assert_same(ops.dropout(poisoned, keep, 0.25)[0], y)


def test_draw_keep_draws_at_its_rate():
    keep = ops.dropout.__globals__["draw_keep"](np.random.default_rng(0), (200, 500), 0.3)
    assert keep.dtype == bool and abs(keep.mean() - 0.7) < 0.005


@given(case=draw())
def test_a_tables_gradient_adds_to_any_array(case):
    """add_to(G) makes G + dense() in G's own memory, and again when called again."""
    ids, table, dx = case.ids("B n", case.V), case.grid("V d"), case.grid("B n d")
    _, dtable = ops.embed(ids, table)[1](dx)
    assert (dtable.shape, dtable.dtype) == (table.shape, table.dtype)
    start = host(case.grid("V d"))
    total = XP.asarray(start.copy())
    for times in (1, 2):
        dtable.add_to(total)
        assert_same(total, XP.asarray(start) + times * dtable.dense())
