"""What every mixer must do. A new one joins by its line in `minisum.mixers.TABLE`.

What it makes of padding, of the future and of a text in pieces stands in test_mixer_texts.py.
"""

import subprocess
import sys

import numpy as np
import pytest
from conftest import XP
from forms import set_chunks
from hypothesis import given, settings
from mixer_forms import (
    MAX_LEN,
    Fixed,
    arrays_of,
    close,
    every_causal_form,
    every_form,
    make,
    nested,
    normal,
    sizes,
)

from minisum import mixers, ops
from minisum.backend import to_numpy
from minisum.errors import UserError
from minisum.gradcheck import gradcheck
from minisum.params import Params, flatten
from minisum.strategies import Case, cases

pytestmark = pytest.mark.usefixtures("short_chunks")

CLASSES = {name: entry.load() for name, entry in mixers.TABLE.items()}
MIXER_MODULES = [ops, *(sys.modules[n] for n in sys.modules if n.startswith("minisum.mixers."))]
# Ops with a corner where a number of their first argument is zero.
KINKED = ("relu", "elu_plus_one", "focused", "dpfp", "norm_aware_query", "norm_aware_key")


def patch_ops(patch, replacements):
    """Put `wrapper(op)` in the place of the named ops in all mixers."""
    for module in MIXER_MODULES:
        for name, wrapper in replacements.items():
            if hasattr(module, name):
                patch.setattr(module, name, wrapper(getattr(module, name)))


def has_kink_nearby(mixer, params, x, mask):
    """Whether a step of 0.001 may carry some number over a corner of a function."""
    distances = [np.inf]

    def watching(op):
        def watched(x, *more):
            size = np.abs(to_numpy(x))
            distances.append(size[size > 0].min(initial=np.inf))
            return op(x, *more)

        return watched

    with pytest.MonkeyPatch.context() as patch:
        patch_ops(patch, dict.fromkeys(KINKED, watching))
        mixer(params, x, mask)
    return min(distances) < 0.005


@pytest.fixture
def gentle_norms(monkeypatch):
    """Norms with so large an eps that no short vector makes the function too steep to measure."""
    patch_ops(
        monkeypatch,
        {
            "rms_norm": lambda op: lambda x, gain, eps=None: op(x, gain, 0.1),
            "l2_norm": lambda op: lambda x, eps=None: op(x, 0.1),
            "layer_norm": lambda op: lambda x, gain, bias, eps=None: op(x, gain, bias, 0.1),
        },
    )


@every_form
@settings(max_examples=4)
@given(case=sizes)
def test_gradients(form, gentle_norms, case):
    mask = case.mask()
    draws = ((*make(form, case, attempt), normal(case)) for attempt in range(1000))
    mixer, params, x = next(draw for draw in draws if not has_kink_nearby(*draw, mask))
    names = sorted(params.flat)

    def op(x, *arrays):
        y, back = mixer(nested(dict(zip(names, arrays, strict=True))), x, mask)

        def back_in_order(dy):
            dx, dparams = back(dy)
            assert sorted(flatten(dparams)) == names
            return dx, *(flatten(dparams)[name] for name in names)

        return y, back_in_order

    verdict = gradcheck(op, x, *(params.flat[name] for name in names), seed=case.seed, entries=1)
    assert verdict, [names, verdict]


@every_causal_form
@settings(max_examples=2)
@given(case=cases(XP, B=(1, 2), n=(1, 4), H=(1, 2)))
def test_gradients_from_a_state(form, gentle_norms, case):
    check_gradients_from_a_state(form, case)


def test_gradients_where_token_statistics_are_steep(gentle_norms):
    case = Case({"B": 2, "n": 1, "H": 2}, 384869, XP)
    check_gradients_from_a_state(("tssa", {"causal": True}), case)


def check_gradients_from_a_state(form, case):
    """Of the second part of a text, all that came before it being given."""
    draws = ((*make(form, case, attempt), normal(case), normal(case)) for attempt in range(1000))
    mixer, params, before, x = next(
        (mixer, params, before, x)
        for mixer, params, before, x in draws
        if not has_kink_nearby(mixer, params, XP.concatenate([before, x], axis=1), None)
    )
    _, state = mixer.step(params, before)
    names = sorted(params.flat)

    def op(x, *arrays):
        (y, _), back = mixer.mix(nested(dict(zip(names, arrays, strict=True))), x, None, state)

        def back_in_order(dy):
            dx, dparams = back(dy)
            return dx, *(flatten(dparams)[name] for name in names)

        return y, back_in_order

    arrays = [params.flat[name] for name in names]
    assert gradcheck(op, x, *arrays, seed=case.seed, entries=1), names


@every_form
@settings(max_examples=3)
@given(case=sizes)
def test_chunks_of_any_size_give_the_same(form, case):
    mixer, params = make(form, case)
    mask, x, dy = case.mask(), normal(case), normal(case)
    results = []
    for tokens in (1, 2, 4, 64):
        with pytest.MonkeyPatch.context() as patch:
            set_chunks(patch, tokens)
            y, back = mixer(params, x, mask)
            dx, dparams = back(dy)
            results.append([y, dx, *(flatten(dparams)[name] for name in sorted(params.flat))])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            close(a, b)


@every_form
@settings(max_examples=3)
@given(case=sizes)
def test_float32_stays_float32_and_near(form, case):
    mixer, params = make(form, case)
    mask, x, dy = case.mask(), normal(case), normal(case)
    exact = mixer(params, x, mask)[0]
    params = nested({name: to_numpy(a) for name, a in params.flat.items()}, "float32")
    y, back = mixer(params, x.astype(np.float32), mask)
    dx, dparams = back(dy.astype(np.float32))
    gradients = flatten(dparams)
    assert {y.dtype, dx.dtype, *(g.dtype for g in gradients.values())} == {np.dtype(np.float32)}
    assert {name: g.shape for name, g in gradients.items()} == params.shapes
    if mixer.causal:
        state = None
        for _ in range(2):
            y_step, state = mixer.step(params, x[:, :1].astype(np.float32), state)
            assert {a.dtype for a in (y_step, *arrays_of(state))} == {np.dtype(np.float32)}
    np.testing.assert_allclose(to_numpy(y), to_numpy(exact), rtol=2e-3, atol=2e-4)


@every_form
def test_long_texts_of_large_numbers_stay_finite(form, monkeypatch):
    """float32, 16,384 tokens ten times as large as usual, in chunks of the size that users have."""
    name, options = form
    n = 16384
    monkeypatch.undo()  # short_chunks
    if name in ("attention", "rela"):  # which take the square of n: shorter, in blocks all the same
        n = 1024
        set_chunks(monkeypatch, 64)
    mixer = mixers.build(name, width=8, heads=2, max_len=n, **options)
    rng = np.random.default_rng(0)
    params = Params.from_arrays(mixer.init(rng), XP)
    x = XP.asarray(10 * rng.normal(size=(1, n, 8)), dtype=np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, back = mixer(params, x)
        dx, dparams = back(XP.asarray(rng.normal(size=y.shape), dtype=np.float32))
    for a in (y, dx, *flatten(dparams).values()):
        assert XP.isfinite(a).all()


@every_form
def test_first_values_depend_on_the_seed_alone(form):
    name, options = form
    mixer = mixers.build(name, width=8, heads=2, **options)
    first, again, other = (flatten(mixer.init(np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert all(np.array_equal(first[k], again[k]) and np.isfinite(first[k]).all() for k in first)
    assert any(not np.array_equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("name", mixers.TABLE)
def test_the_table_tells_which_forms_a_class_has(name):
    for form in ("can_be_causal", "can_be_bidirectional"):
        assert getattr(mixers.TABLE[name], form) == getattr(CLASSES[name], form)


def test_a_mixer_is_imported_when_it_is_built():
    program = "import sys; from minisum import mixers; print(*sys.modules)\n"
    program += "mixers.build('retnet', width=4, causal=True); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    before, after = (set(line.split()) for line in run.stdout.splitlines())
    modules = {f"minisum.mixers.{entry.module}" for entry in mixers.TABLE.values()}
    assert not modules & before and modules & after == {"minisum.mixers.retnet"}


@pytest.mark.parametrize("name", mixers.TABLE)
def test_refusals(name):
    mixer = mixers.TABLE[name]
    with pytest.raises(UserError, match="do not divide"):
        mixers.build(name, width=8, heads=3, causal=mixer.can_be_causal)
    with pytest.raises(TypeError, match="nonsense"):
        mixers.build(name, width=8, heads=2, nonsense=1)
    for able, causal, reason in (
        (mixer.can_be_causal, True, "cannot be causal"),
        (mixer.can_be_bidirectional, False, "cannot look ahead"),
    ):
        if not able:
            with pytest.raises(UserError, match=reason):
                mixers.build(name, width=8, heads=2, causal=causal)
    if mixer.can_be_bidirectional:
        built = mixers.build(name, width=8, heads=2)
        with pytest.raises(UserError, match="causal=True"):
            built.step({}, XP.zeros((1, 1, 8)))


def test_other_refusals():
    with pytest.raises(UserError, match="unknown mixer 'softmux'"):
        mixers.build("softmux", width=8)
    with pytest.raises(UserError, match="odd width 3"):
        mixers.build("retnet", width=6, heads=2, causal=True)
    with pytest.raises(UserError, match="keys' width 2"):
        mixers.build("gla", width=4, heads=4, causal=True)
    with pytest.raises(UserError, match="prefix_scale"):
        mixers.build("simpletron", width=4, causal=True, prefix_scale="none")
    with pytest.raises(UserError, match="scale"):
        mixers.build("simpletron:scale=half", width=4)
    with pytest.raises(UserError, match="prefix_scale"):
        mixers.build("simpletron", width=4, prefix_scale="max_len")
    with pytest.raises(UserError, match="conv"):
        mixers.build("deltanet", width=4, causal=True, conv=-1)
    for most in (0, 2.5):
        with pytest.raises(UserError, match="beta_max is a number above 0 and at most 2"):
            mixers.build("kda", width=4, causal=True, beta_max=most)
    with pytest.raises(UserError, match="from 1 on, not 0"):
        mixers.build("deltaproduct", width=4, causal=True, steps=0)


def test_options_stand_behind_a_name():
    built = mixers.build("deltaproduct:steps=3:beta_max=1:gate=False", width=8, causal=True)
    assert (built.steps, built.beta_max, built.gate) == (3, 1, False)
    assert mixers.build("simpletron:prefix_scale=max_len", width=4, causal=True).causal
    layers = mixers.parse_pattern("deltanet:beta_max=2*2, attention:head_width=3")
    assert layers == ["deltanet:beta_max=2", "deltanet:beta_max=2", "attention:head_width=3"]
    for text, reason in (
        ("deltanet:beta=2", "no option 'beta'; it has conv, beta_max"),
        ("projection:width=3", "no option 'width'; it has none"),
        ("deltanet:conv", "conv is of type int, not ''"),
        ("deltanet:conv=1.5", "conv is of type int, not '1.5'"),
        ("deltaproduct:gate=1", "gate is of type bool, not '1'"),
        ("deltanett:conv=1", "unknown mixer 'deltanett'"),
    ):
        with pytest.raises(UserError, match=reason):
            mixers.build(text, width=4, causal=True)
    with pytest.raises(UserError, match="no option 'beta'"):
        mixers.parse_pattern("deltanet:beta=2")


@pytest.mark.parametrize("name", ["cosformer", "tssa", "log_linear"])
def test_texts_longer_than_max_len_are_refused(name):
    case = Fixed(B=1, n=MAX_LEN, H=1)
    mixer, params = make((name, {"causal": True}), case)
    _, state = mixer.step(params, normal(case))
    with pytest.raises(UserError, match="built for 12 tokens"):
        mixer.step(params, normal(case)[:, :1], state)
