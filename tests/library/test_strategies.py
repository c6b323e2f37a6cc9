"""What a test draws: cases that print as one line, and every layout and mask among them."""

from collections import Counter

import numpy as np
import pytest
from conftest import XP
from hypothesis import given, settings

from minisum import backend, strategies
from minisum.strategies import LAYOUTS, Case, cases


def arrays_of(case):
    return [
        case.grid("B n d"), case.normal("d", 2.0), case.uniform("B n", 3, 4), case.ids("B n", 5),
        case.keep("B 1 d"), case.mask(), case.normal(""),
    ]  # fmt: skip


@given(case=cases(XP, B=(1, 3), n=(1, 6), d=(1, 5)))
def test_a_case_is_repeated_from_its_repr(case):
    def repeated(seed, **sizes):
        return Case(sizes, seed, XP)

    again = eval(repr(case), {"Case": repeated})
    for a, b in zip(arrays_of(case), arrays_of(again), strict=True):
        assert (a == b).all() and a.dtype == b.dtype and a.strides == b.strides


@given(case=cases(XP, B=(1, 3), n=(1, 6), d=(1, 5)))
def test_a_case_keeps_its_word(case):
    if XP is np:
        assert not any(a.flags.writeable for a in arrays_of(case))
    numbers = backend.to_numpy(case.grid("B n d", -2.0, 0.5))
    assert numbers.shape == (case.B, case.n, case.d)
    assert (numbers * 8 == np.round(numbers * 8)).all()
    assert numbers.min() >= -2 and numbers.max() <= 0.5
    assert case.shape("B 4 d") == (case.B, 4, case.d)
    ids = backend.to_numpy(case.ids("B n", 3, -1))
    assert ids.min() >= -1 and ids.max() < 3
    with pytest.raises(AttributeError, match="no size 'q'"):
        _ = case.q


def layout(array):
    steps = [s for s, size in zip(array.strides, array.shape, strict=True) if size > 1]
    if any(s < 0 for s in steps):
        return "reversed"
    if array.flags.c_contiguous:
        return "C"
    return "Fortran" if array.flags.f_contiguous else "strided"


def mask_kind(mask):
    if mask.all():
        return "all real"
    if not mask.any(axis=1).all():
        return "one row all padding"
    if (mask[:, :-1] >= mask[:, 1:]).all():
        return "right padding"
    return "left padding" if (mask[:, :-1] <= mask[:, 1:]).all() else "holes"


def test_all_layouts_and_masks_occur():
    seen = Counter()
    for seed in range(200):
        case = Case({"B": 3, "n": 6, "d": 5}, seed, XP)
        seen[layout(case.normal("B n d"))] += 1
        seen[mask_kind(backend.to_numpy(case.mask()))] += 1
    assert set(seen) == {*LAYOUTS, *strategies.MASKS}
    assert min(seen.values()) >= 10, seen


def test_the_example_in_the_docstring_works():
    lines = [
        s[4:] for s in strategies.__doc__.splitlines() if s.startswith("    ") or not s.strip()
    ]
    names = {"my_op": lambda x, g: (x * g, lambda dy: (dy * g, (dy * x).sum(axis=(0, 1))))}
    exec("\n".join(lines), names)
    settings(max_examples=5, database=None)(names["test_my_op"])()
