"""What every mixer must do. A new one joins by its line in `minisum.mixers.TABLE`."""

import sys
from itertools import pairwise

import numpy as np
import pytest
from conftest import XP
from hypothesis import given, settings
from hypothesis import strategies as st

from minisum import mixers
from minisum.backend import to_device, to_numpy
from minisum.errors import UserError
from minisum.gradcheck import gradcheck
from minisum.strategies import cases

MAX_LEN = 12

# The package's attribute of that name is the function.
DELTA_RULE = sys.modules["minisum.ops.delta_rule"]

FORMS = [
    (name, {"causal": causal})
    for name, mixer in mixers.TABLE.items()
    for causal in (False, True)
    if (mixer.can_be_causal if causal else mixer.can_be_bidirectional)
]
FORMS += [
    ("summation", {"causal": True, "two_layer": False}),
    ("summation", {"causal": False, "two_layer": True}),
    ("simpletron", {"causal": True, "prefix_scale": "max_len"}),
    ("attention", {"causal": True, "head_width": 3}),
    ("retnet", {"causal": True, "expand_v": 1}),
    ("gla", {"causal": True, "expand_k": 1}),
    ("deltanet", {"causal": True, "conv": 0}),
    ("gated_deltanet", {"causal": True, "conv": 1, "expand_v": 1}),
]
NAMES = [" ".join([name, *(f"{k}={v}" for k, v in options.items())]) for name, options in FORMS]
every_form = pytest.mark.parametrize("form", FORMS, ids=NAMES)
every_causal_form = pytest.mark.parametrize(
    "form",
    [form for form in FORMS if form[1]["causal"]],
    ids=[name for name, form in zip(NAMES, FORMS, strict=True) if form[1]["causal"]],
)
# Two numbers a head at least: a norm over a single one leaves only its sign.
sizes = cases(XP, B=(1, 2), n=(1, 9), H=(1, 2))


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    """Borders of chunks inside texts of a few tokens, and both forms of softmax attention."""
    set_chunks(monkeypatch, 3)


def set_chunks(monkeypatch, tokens):
    monkeypatch.setattr("minisum.ops.products.CHUNK", tokens)
    monkeypatch.setattr("minisum.ops.products.CHUNK_BY_CHANNEL", tokens)
    monkeypatch.setattr(DELTA_RULE, "CHUNK", tokens)
    monkeypatch.setattr("minisum.ops.chunks.CUMSUM_CHUNK", tokens)
    monkeypatch.setattr("minisum.ops.chunks.PIECE", 2 * tokens)
    monkeypatch.setattr("minisum.mixers.projection.PIECE", tokens)
    monkeypatch.setattr("minisum.mixers.attention.BLOCKED_FROM", 2 * tokens)


def make(form, case, attempt=0):
    """A mixer of head width 4 and parameters a random step away from their first values."""
    name, options = form
    mixer = mixers.build(name, width=4 * case.H, heads=case.H, max_len=MAX_LEN, **options)
    rng = np.random.default_rng([case.seed, attempt])
    arrays = mixer.init(rng)
    params = {k: a + rng.normal(0, 0.4, a.shape) for k, a in arrays.items()}
    if name == "cosformer":
        # Without this most features are zero, and the denominators with them.
        params |= {k: params[k] + 1 for k in ("bq", "bk")}
    for a in params.values():
        a.flags.writeable = False
    return mixer, to_device(params, XP)


def normal(case):
    """Tokens (B, n, d)."""
    return XP.asarray(case.rng.normal(size=(case.B, case.n, 4 * case.H)))


MIXER_MODULES = [sys.modules[name] for name in sys.modules if name.startswith("minisum.mixers.")]


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
        def watched(x):
            size = np.abs(to_numpy(x))
            distances.append(size[size > 0].min(initial=np.inf))
            return op(x)

        return watched

    with pytest.MonkeyPatch.context() as patch:
        patch_ops(patch, {"relu": watching, "elu_plus_one": watching})
        mixer(params, x, mask)
    return min(distances) < 0.005


@pytest.fixture
def gentle_norms(monkeypatch):
    """Norms with so large an eps that no short vector makes the function too steep to measure."""
    patch_ops(
        monkeypatch,
        {
            "rms_norm": lambda op: lambda x, gain, eps: op(x, gain, 0.1),
            "l2_norm": lambda op: lambda x: op(x, 0.1),
        },
    )


@every_form
@settings(max_examples=4)
@given(case=sizes)
def test_gradients(form, gentle_norms, case):
    mask = case.mask()
    draws = ((*make(form, case, attempt), normal(case)) for attempt in range(1000))
    mixer, params, x = next(draw for draw in draws if not has_kink_nearby(*draw, mask))
    names = sorted(params)

    def op(x, *arrays):
        y, back = mixer(dict(zip(names, arrays, strict=True)), x, mask)

        def back_in_order(dy):
            dx, dparams = back(dy)
            assert sorted(dparams) == names
            return dx, *(dparams[name] for name in names)

        return y, back_in_order

    verdict = gradcheck(op, x, *(params[name] for name in names), seed=case.seed, entries=3)
    assert verdict, [names, verdict]


@every_causal_form
@settings(max_examples=2)
@given(case=cases(XP, B=(1, 2), n=(1, 4), H=(1, 2)))
def test_gradients_from_a_state(form, gentle_norms, case):
    """Of the second part of a text, all that came before it being given."""
    draws = ((*make(form, case, attempt), normal(case), normal(case)) for attempt in range(1000))
    mixer, params, before, x = next(
        (mixer, params, before, x)
        for mixer, params, before, x in draws
        if not has_kink_nearby(mixer, params, XP.concatenate([before, x], axis=1), None)
    )
    _, state = mixer.step(params, before)
    names = sorted(params)

    def op(x, *arrays):
        (y, _), back = mixer.mix(dict(zip(names, arrays, strict=True)), x, None, state)

        def back_in_order(dy):
            dx, dparams = back(dy)
            return dx, *(dparams[name] for name in names)

        return y, back_in_order

    arrays = [params[name] for name in names]
    assert gradcheck(op, x, *arrays, seed=case.seed, entries=3), names


@every_form
@settings(max_examples=5)
@given(case=sizes)
def test_padding_is_as_if_it_were_not_there(form, case):
    """NaN at padding changes nothing, forward or backward; y and dx there are zero."""
    mixer, params = make(form, case)
    mask = case.mask()
    x, dy = normal(case), normal(case)
    y, back = mixer(params, x, mask)
    dx, dparams = back(dy)
    assert not y[~mask].any() and not dx[~mask].any()

    spoiled, spoiled_dy = (XP.where(mask[:, :, None], a, XP.nan) for a in (x, dy))
    y_again, back_again = mixer(params, spoiled, mask)
    dx_again, dparams_again = back_again(spoiled_dy)
    same(y, y_again)
    same(dx, dx_again)
    for name in params:
        same(dparams[name], dparams_again[name])


@every_form
@settings(max_examples=6)
@given(case=sizes)
def test_a_text_alone_equals_itself_in_a_batch(form, case):
    """Padded right or left, beside a longer text, or cut to its length: the same numbers."""
    mixer, params = make(form, case)
    n = case.n
    short = int(case.rng.integers(1, n, endpoint=True))
    text, longer = normal(case)[:1], normal(case)[:1]
    dtext = normal(case)[:1, :short]
    y, back = mixer(params, text[:, :short])
    dx, dparams = back(dtext)
    for place in (slice(0, short), slice(n - short, n)):
        x = XP.concatenate([XP.full_like(text, 7.0), longer])
        x[0, place] = text[0, :short]
        mask = XP.ones((2, n), bool)
        mask[0] = False
        mask[0, place] = True
        dy = XP.zeros_like(x)
        dy[0, place] = dtext[0]
        y_batch, back_batch = mixer(params, x, mask)
        dx_batch, dparams_batch = back_batch(dy)
        close(y[0], y_batch[0, place])
        close(dx[0], dx_batch[0, place])
        for name in params:
            close(dparams[name], dparams_batch[name])
        close(y_batch[1], mixer(params, longer)[0][0])


@every_form
@settings(max_examples=6)
@given(case=sizes)
def test_padding_amid_a_text_changes_nothing(form, case):
    """A text with holes gives what it gives without (a convolution aside: it counts places)."""
    mixer, params = make(form, case)
    if getattr(mixer, "conv", 0) > 1:
        return
    x, dy = normal(case)[:1], normal(case)[:1]
    mask = XP.asarray(case.rng.random((1, case.n)) < 0.6)
    if not mask.any():
        return
    y, back = mixer(params, x, mask)
    without, back_without = mixer(params, x[mask][None])
    close(y[mask], without[0])
    (dx, dparams), (dx_without, dparams_without) = back(dy), back_without(dy[mask][None])
    close(dx[mask], dx_without[0])
    for name in params:
        close(dparams[name], dparams_without[name])


@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet"])
def test_padding_amid_a_text_leaves_the_memory_alone(name):
    """After three of them the convolution has forgotten what came before; the memory has not."""
    case = Fixed(B=1, n=11, H=2)
    mixer, params = make((name, {"causal": True}), case)
    x = normal(case)
    mask = XP.ones((1, 11), bool)
    mask[:, 4:7] = False
    _, (memory, *_) = mixer.step(params, x[:, :4])
    after, _ = mixer.step(params, x[:, 7:], (memory, None, None, None))
    close(mixer(params, x, mask)[0][:, 7:], after)


@every_form
def test_texts_without_tokens(form):
    """All padding gives zeros, and zeros back."""
    case = Fixed(B=2, n=5, H=2)
    mixer, params = make(form, case)
    x, dy = normal(case), normal(case)
    y, back = mixer(params, x, XP.zeros((2, 5), bool))
    dx, dparams = back(dy)
    assert not y.any() and not dx.any()
    assert not any(gradient.any() for gradient in dparams.values())


@every_causal_form
@settings(max_examples=6)
@given(case=sizes, masked=st.booleans())
def test_the_past_does_not_know_the_future(form, case, masked):
    """A change from token s on leaves the outputs before s alike to the last bit."""
    mixer, params = make(form, case)
    mask = case.mask() if masked else None
    s = int(case.rng.integers(0, case.n))
    x = normal(case)
    changed = x.copy()
    changed[:, s:] = normal(case)[:, s:]
    same(mixer(params, x, mask)[0][:, :s], mixer(params, changed, mask)[0][:, :s])
    dy = XP.zeros_like(x)
    dy[:, :s] = normal(case)[:, :s]
    dx, _ = mixer(params, x, mask)[1](dy)
    assert not dx[:, s:].any()


@every_causal_form
@settings(max_examples=8)
@given(case=sizes)
def test_any_split_into_steps_gives_the_whole(form, case):
    mixer, params = make(form, case)
    x = normal(case)
    whole, _ = mixer(params, x)
    cuts = sorted(case.rng.choice(case.n + 1, case.rng.integers(0, case.n + 1), replace=False))
    state, pieces = None, []
    for start, end in pairwise([0, *(c for c in cuts if 0 < c < case.n), case.n]):
        y, state = mixer.step(params, x[:, start:end], state)
        pieces.append(y)
    close(whole, XP.concatenate(pieces, axis=1))


@every_causal_form
def test_the_state_is_as_large_as_documented(form):
    case = Fixed(B=3, n=7, H=2)
    mixer, params = make(form, case)
    _, state = mixer.step(params, normal(case))
    assert numbers_a_sequence(state, batch=3) == mixer.state_size(7)
    if form[0] != "attention":
        assert mixer.state_size() == mixer.state_size(7)


def numbers_a_sequence(state, batch):
    if isinstance(state, tuple):
        return sum(numbers_a_sequence(part, batch) for part in state)
    if isinstance(state, int):
        return 1
    if state is None:
        return 0
    assert len(state) == batch
    return state.size // batch


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
            results.append([y, dx, *(dparams[name] for name in sorted(params))])
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
    params = {name: a.astype(np.float32) for name, a in params.items()}
    y, back = mixer(params, x.astype(np.float32), mask)
    dx, dparams = back(dy.astype(np.float32))
    assert {y.dtype, dx.dtype, *(g.dtype for g in dparams.values())} == {np.dtype(np.float32)}
    assert {name: g.shape for name, g in dparams.items()} == {k: a.shape for k, a in params.items()}
    if mixer.causal:
        state = None
        for _ in range(2):
            y_step, state = mixer.step(params, x[:, :1].astype(np.float32), state)
            assert {y_step.dtype, *dtypes(state)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(to_numpy(y), to_numpy(exact), rtol=2e-3, atol=2e-4)


def dtypes(state):
    if isinstance(state, tuple):
        return {dtype for part in state for dtype in dtypes(part)}
    return {state.dtype} if hasattr(state, "dtype") else set()


@every_form
def test_long_texts_of_large_numbers_stay_finite(form, monkeypatch):
    """float32, 16,384 tokens ten times as large as usual, in chunks of ordinary size."""
    name, options = form
    set_chunks(monkeypatch, 64)
    n = 2048 if name == "attention" else 16384
    mixer = mixers.build(name, width=8, heads=2, max_len=n, **options)
    rng = np.random.default_rng(0)
    params = {k: XP.asarray(a, dtype=np.float32) for k, a in mixer.init(rng).items()}
    x = XP.asarray(10 * rng.normal(size=(1, n, 8)), dtype=np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, back = mixer(params, x)
        dx, dparams = back(XP.asarray(rng.normal(size=y.shape), dtype=np.float32))
    for a in (y, dx, *dparams.values()):
        assert XP.isfinite(a).all()


@every_form
def test_first_values_depend_on_the_seed_alone(form):
    name, options = form
    mixer = mixers.build(name, width=8, heads=2, **options)
    first, again, other = (mixer.init(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(first[k], again[k]) and np.isfinite(first[k]).all() for k in first)
    assert any(not np.array_equal(first[k], other[k]) for k in first)


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
    with pytest.raises(UserError, match="prefix_scale"):
        mixers.build("simpletron", width=4, prefix_scale="max_len")
    with pytest.raises(UserError, match="conv"):
        mixers.build("deltanet", width=4, causal=True, conv=-1)


@pytest.mark.parametrize("name", ["cosformer", "tssa"])
def test_texts_longer_than_max_len_are_refused(name):
    case = Fixed(B=1, n=MAX_LEN, H=1)
    mixer, params = make((name, {"causal": True}), case)
    _, state = mixer.step(params, normal(case))
    with pytest.raises(UserError, match="built for 12 tokens"):
        mixer.step(params, normal(case)[:, :1], state)


class Fixed:
    """A case of known sizes."""

    def __init__(self, **sizes):
        self.__dict__.update(sizes, seed=0, rng=np.random.default_rng(0))


def same(a, b):
    np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def close(a, b):
    np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-9, atol=1e-10)
