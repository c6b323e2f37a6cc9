"""Every faster form against its textbook form: value, gradient, types, layouts, what is saved."""

import numpy as np
import pytest
from agreement import (
    arrays_only,
    assert_close,
    assert_same,
    cotangent,
    each,
    is_real,
    parts,
    size_of_terms,
)
from conftest import XP
from forms import CASES, DISPATCHED, OPS, forms, only, set_chunks
from hypothesis import given
from op_cases import draw

from minisum import backend
from minisum.fast import FORMS
from minisum.saved import saved_arrays
from minisum.shards import Workers

PAIRS = [(case, module) for case, module in CASES if module]


def adam_arguments(c, decay=None, clip=None, scale=None, rate=None):
    theta, m, v, g, average = (XP.array(c.normal("7")) for _ in range(5))
    formula = 3, 0.1, (0.9, 0.99), 1e-8, decay, clip, scale
    return theta, m, v * v, g, *formula, average if rate else None, rate, Workers()


def unit_triangle(c):
    return XP.tril(0.3 * c.normal("B 5 5"), -1) + XP.eye(5)


# What has forms and no gradient: arguments, some of which it may change in place.
FUNCTIONS = {
    "adam_update": adam_arguments,
    "adam_update with all": lambda c: adam_arguments(c, XP.asarray(np.arange(7.0)), 0.5, 0.25, 0.3),
    "add_rows": lambda c: (XP.array(c.normal("V d")), c.ids("B n", c.V), c.normal("B n d")),
    "cumsum": lambda c: (c.normal("B n d"), 1),
    "cumsum of heads": lambda c: (c.normal("B H n h"), 2),
    "cumsum reversed": lambda c: (c.normal("B n d"), 1, True),
    "add_scaled": lambda c: (c.normal("B n d"), c.normal("B n d"), 0.3),
    "sum_leading": lambda c: (c.normal("B n d"),),
    "normal_cdf": lambda c: (c.normal("B n d", 4.0),),
    "score_targets": lambda c: (
        c.normal("B n d"), c.normal("V d"), c.normal("V"), c.ids("B n", c.V, -1)
    ),
}  # fmt: skip
FUNCTIONS |= {
    "unit_triangular_solve": lambda c: (unit_triangle(c), c.normal("B 5 d")),
    "unit_triangular_solve turned": lambda c: (unit_triangle(c), c.normal("B 5 d"), True),
}
FUNCTION_PAIRS = [(name, module) for name in FUNCTIONS for module in forms(name.split()[0])]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    set_chunks(monkeypatch, 2)


def test_every_form_has_a_pair():
    """With a textbook form here: an entry of the table without one is a form that no test sees."""
    paired = {(name.split()[0], module) for name, module in PAIRS + FUNCTION_PAIRS}
    assert paired == {(name, module) for name in FORMS for module in forms(name)}
    assert set(DISPATCHED) == set(FORMS)
    for name, op in DISPATCHED.items():
        for place in ("numpy", "cupy"):
            assert {form.__name__ for form in op.forms(place)} <= {name}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, module", PAIRS)
@given(case=draw())
def test_a_form_is_its_textbook_form(name, module, dtype, case):
    """In all layouts and masks that a case may draw; back twice, with the same bits on a host."""
    op, *arrays = OPS[name](case)
    arrays = [a.astype(dtype) if is_real(a) else a for a in arrays]
    with only(name.split()[0], None):
        y, back = op(*arrays)
    with only(name.split()[0], module) as taken:
        found, back_found = op(*arrays)
    assert taken or 0 in arrays[0].shape, "the form did not take the arguments"
    dy = each(lambda u: u.astype(dtype), cotangent(case, y))
    gradients, wanted = arrays_only(back_found(dy)), arrays_only(back(dy))
    again = arrays_only(back_found(dy))
    terms = size_of_terms(arrays, wanted, y, dy)
    if isinstance(y, tuple):  # a state that nobody reads has no gradient
        gradients += arrays_only(back_found((dy[0], None)))
        wanted += arrays_only(back((dy[0], None)))
    for a, b in zip([*parts(found), *gradients], [*parts(y), *wanted], strict=True):
        assert a.dtype == b.dtype == dtype
        assert_close(a, b, dtype, terms)
    for a, b in zip(gradients, again, strict=False):
        assert_same(a, b) if XP is np else assert_close(a, b, dtype)
    assert [g is None for g in as_tuple(back_found(dy))] == [g is None for g in as_tuple(back(dy))]
    form = DISPATCHED[name.split()[0]].forms(XP.__name__)[forms(name.split()[0]).index(module)]
    if XP is np and "Saved:" not in (form.__doc__ or ""):
        assert kept(back_found) == kept(back)


def as_tuple(gradients):
    return gradients if isinstance(gradients, tuple) else (gradients,)


def kept(back):
    return sum(a.nbytes for a in saved_arrays(back) if a.ndim)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, module", FUNCTION_PAIRS)
@given(case=draw())
def test_a_function_is_its_textbook_form(name, module, dtype, case):
    arrays = [a.astype(dtype) if hasattr(a, "dtype") and is_real(a) else a
              for a in FUNCTIONS[name](case)]  # fmt: skip
    results = []
    for form in (None, module):
        own = [a.copy() if hasattr(a, "dtype") else a for a in arrays]
        with only(name.split()[0], form) as taken:
            result = DISPATCHED[name.split()[0]](*own)
        results.append([a for a in (result, *own) if hasattr(a, "dtype")])
    assert taken, "the form did not take the arguments"
    for found, wanted in zip(*results, strict=True):
        assert found.dtype == wanted.dtype
        assert_close(found, wanted, dtype)


@pytest.mark.parametrize("name, module", [pair for pair in PAIRS if pair[0] == pair[0].split()[0]])
def test_other_types_are_left_to_the_textbook_form(name, module):
    """Long doubles, where they are not doubles: declined by every form, answered all the same."""
    if XP is not np or np.dtype(np.longdouble) == np.float64:
        pytest.skip("has no longer type")
    from minisum.strategies import Case

    case = Case(dict.fromkeys("BndoVHh", 2), 0)
    op, *arrays = OPS[name](case)
    with only(name.split()[0], module) as taken:
        y, _ = op(*[a.astype(np.longdouble) if is_real(a) else a for a in arrays])
    assert not taken and parts(y)[0].dtype == np.longdouble


def test_forms_are_found_by_where_the_first_array_lives():
    """On the strict stand-in for CuPy the kernels decline, and the textbook form answers."""
    import fake_cupy

    op = DISPATCHED["layer_norm"]
    x = np.random.default_rng(0).normal(size=(3, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "cupy", fake_cupy.module)
        patch.setattr("minisum.fast.cuda.compiling.runs_on", lambda *arrays: False)
        y, _ = op(*map(fake_cupy.module.asarray, (x, np.ones(4), np.zeros(4))))
        assert backend.array_module(y) is fake_cupy.module
    assert_close(y.get(), op.plain(x, np.ones(4), np.zeros(4))[0])
