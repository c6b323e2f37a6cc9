"""What every mixer must make of a text: of its padding, its future, and its pieces."""

from itertools import pairwise

import pytest
from conftest import XP
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mixer_forms import (
    Fixed,
    arrays_of,
    close,
    every_causal_form,
    every_form,
    make,
    normal,
    same,
    sizes,
)

from minisum.mixers.base import Packed
from minisum.params import flatten
from minisum.strategies import Case

pytestmark = pytest.mark.usefixtures("short_chunks")


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
    gradients, gradients_again = flatten(dparams), flatten(dparams_again)
    for name in params.flat:
        same(gradients[name], gradients_again[name])


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
    y_longer, _ = mixer(params, longer)
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
        gradients, gradients_batch = flatten(dparams), flatten(dparams_batch)
        for name in params.flat:
            close(gradients[name], gradients_batch[name])
        close(y_batch[1], y_longer[0])


@every_form
@settings(max_examples=6)
@example(case=Case({"B": 1, "n": 9, "H": 2}, 0, XP))  # holes with real tokens on both sides
@given(case=sizes)
def test_padding_amid_a_text_changes_nothing(form, case):
    """A text with holes gives what it gives without (a convolution aside: it counts places)."""
    mixer, params = make(form, case)
    if getattr(mixer, "conv", 0) > 1 and not isinstance(mixer, Packed):
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
    gradients, gradients_without = flatten(dparams), flatten(dparams_without)
    for name in params.flat:
        close(gradients[name], gradients_without[name])


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
    assert not any(gradient.any() for gradient in flatten(dparams).values())


@every_form
@pytest.mark.parametrize("B, n", [(2, 0), (0, 3)])
def test_arrays_without_tokens(form, B, n):
    """No column, or no text: nothing comes out and nothing comes back."""
    case = Fixed(B=B, n=n, H=2)
    mixer, params = make(form, case)
    for mask in (None, XP.ones((B, n), bool)):
        y, back = mixer(params, normal(case), mask)
        dx, dparams = back(normal(case))
        assert y.shape == dx.shape == (B, n, 8)
        gradients = flatten(dparams)
        assert {name: a.shape for name, a in gradients.items()} == params.shapes
        assert not any(gradient.any() for gradient in gradients.values())


@every_causal_form
def test_a_step_of_no_token_changes_nothing(form):
    case = Fixed(B=2, n=5, H=2)
    mixer, params = make(form, case)
    x, state, pieces = normal(case), None, []
    for piece in (x[:, :0], x[:, :2], x[:, 2:2], x[:, 2:]):
        y, state = mixer.step(params, piece, state)
        pieces.append(y)
    close(mixer(params, x)[0], XP.concatenate(pieces, axis=1))


@every_causal_form
@settings(max_examples=6)
@example(case=Case({"B": 2, "n": 9, "H": 2}, 46959, XP), masked=True)  # a change inside a chunk
@given(case=sizes, masked=st.booleans())
def test_the_past_does_not_know_the_future(form, case, masked):
    """A change from token s on leaves the outputs before s alike to the last bit."""
    mixer, params = make(form, case)
    mask = case.mask() if masked else None
    s = int(case.rng.integers(0, case.n))
    x = normal(case)
    changed = x.copy()
    changed[:, s:] = normal(case)[:, s:]
    y, back = mixer(params, x, mask)
    same(y[:, :s], mixer(params, changed, mask)[0][:, :s])
    dy = XP.zeros_like(x)
    dy[:, :s] = normal(case)[:, :s]
    dx, _ = back(dy)
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
    if form[0] not in ("attention", "window", "rela"):
        assert mixer.state_size() == mixer.state_size(7)


@every_causal_form
def test_the_state_keeps_no_prompt_alive(form):
    """Nor any other array that it is a small part of."""
    case = Fixed(B=3, n=12, H=2)
    mixer, params = make(form, case)
    _, state = mixer.step(params, normal(case))
    for array in arrays_of(state):
        assert array.base is None or array.base.nbytes == array.nbytes


def numbers_a_sequence(state, batch):
    if isinstance(state, tuple):
        return sum(numbers_a_sequence(part, batch) for part in state)
    if isinstance(state, int):
        return 1
    if state is None:
        return 0
    assert len(state) == batch
    return state.size // batch
