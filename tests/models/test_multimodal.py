"""The regressors of text and numbers as wholes: gradients, padding, the closed form."""

import numpy as np
import pytest
from conftest import XP
from hypothesis import given
from text_models import (
    assert_backward_adds,
    assert_writes_to_nothing,
    gradient,
    host,
    one_of,
    text_batch,
)

from minisum import backend
from minisum.errors import UserError
from minisum.gradcheck import gradcheck, loss_op
from minisum.models import multimodal
from minisum.models.closed_form import solve_ridge
from minisum.params import Params, flatten
from minisum.strategies import cases

MIXERS = list(multimodal.MODELS)


def build(mixer, V=7, d=6, k=3, n=9, **options):
    return multimodal.build(mixer, V, d, k, n, heads=2, **options)


def parameters(model, seed=0):
    """Normal draws, the biases around 1, so that every layer has a ReLU that is open."""
    rng = np.random.default_rng(seed)
    shapes = {name: a.shape for name, a in flatten(model.init(rng)).items()}
    arrays = {name: rng.normal(float(name.endswith(".b")), 0.5, s) for name, s in shapes.items()}
    return Params.from_arrays(arrays, XP, "float64")


def make_batch(model, lengths, n, seed=0, noise=True):
    def rest(rng, B):
        numbers = rng.normal(size=(B, model.columns, model.inputs))
        return {"numbers": numbers, "targets": rng.normal(size=B)}

    return text_batch(model, lengths, n, rest, seed, noise)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("mixer", MIXERS)
def test_gradient_of_the_whole_model(mixer, inputs, noisy):
    """Along a random direction of the flat vector and along 40 of its entries.

    The seeds are fixed, and at them no ReLU turns over within a step of the difference.
    """
    rates = {"dropout": 0.3, "token_dropout": 0.2} if noisy else {}
    model = build(mixer, inputs=inputs, **rates)
    params = parameters(model, seed=7)
    batch = make_batch(model, [4, 1, 0, 3], n=4, seed=1)
    used = params.zeros_like()
    model.loss(params, batch, 4)[1](used)
    assert gradcheck(loss_op(model, params, batch), params.vector, entries=40, seed=4)
    for name, g in used.flat.items():
        assert host(g).any(), name


@pytest.mark.parametrize("mixer", MIXERS)
def test_backward_adds_and_writes_to_nothing(mixer):
    model = build(mixer, dropout=0.5)
    params = parameters(model)
    batch = make_batch(model, [3, 5], n=5)
    assert_backward_adds(model, params, batch)
    assert_writes_to_nothing(model, params, batch)


@pytest.mark.parametrize("mixer", MIXERS)
@given(case=cases(XP, B=(2, 5), n=(1, 6)))
def test_an_example_alone_equals_itself_in_a_batch(mixer, case):
    """Whatever stands in the padding, and with padding on top of it."""
    model = build(mixer)
    params = parameters(model, case.seed)
    lengths = case.rng.integers(0, case.n + 1, case.B)
    batch = make_batch(model, lengths, case.n + 2, case.seed)
    together = host(model.predict(params, batch))
    alone = np.zeros(params.vector.shape)
    for b, length in enumerate(lengths):
        one = one_of(batch, b, length)
        np.testing.assert_allclose(host(model.predict(params, one))[0], together[b], atol=1e-9)
        grads = params.zeros_like()
        model.loss(params, one, case.B)[1](grads)
        alone += host(grads.vector)
    np.testing.assert_allclose(alone, gradient(model, params, batch), rtol=1e-9, atol=1e-7)


def test_words_see_no_number_and_the_others_see_each():
    for mixer in MIXERS:
        model = build(mixer)
        params = parameters(model)
        params.vector[...] = abs(params.vector)  # every ReLU open
        batch = make_batch(model, [3, 5], n=5)
        plain = host(model.predict(params, batch))
        for i in range(model.columns):
            numbers = batch["numbers"].copy()
            numbers[:, i] += 3.0
            moved = host(model.predict(params, batch | {"numbers": numbers}))
            if mixer == "words":
                np.testing.assert_array_equal(moved, plain)
            else:
                assert np.abs(moved - plain).max() > 1e-6, (mixer, i)


def test_the_shared_channel_is_a_sum():
    """joint(text, numbers) = joint(text) + joint(numbers), an empty text saying relu(bias)."""
    model = build("summation")
    params = parameters(model)
    batch = make_batch(model, [4, 2], n=4)
    both, _ = model.joint(params, batch)
    silent = batch | {"mask": batch["mask"] & False}
    numbers, _ = model.joint(params, silent)
    words, _ = multimodal.WordsRegressor.joint(model, params, batch)
    nothing = XP.maximum(params["text"]["b"], 0)
    np.testing.assert_allclose(host(both), host(words + numbers - nothing), atol=1e-10)


def test_ridge_is_the_minimum():
    """There the gradient of Σ (x w + b - y)² + alpha |w|² vanishes; any other point is worse."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (40, 4)), rng.normal(5, 1, 40)
    w, b = solve_ridge(x, y, alpha=2.5)
    off = x @ w + b - y
    np.testing.assert_allclose(x.T @ off + 2.5 * w, 0, atol=1e-10)
    assert abs(off.sum()) < 1e-10
    value = (off**2).sum() + 2.5 * (w**2).sum()
    for _ in range(20):
        v, c = w + rng.normal(0, 0.1, 4), b + rng.normal(0, 0.1)
        assert ((x @ v + c - y) ** 2).sum() + 2.5 * (v**2).sum() > value


def test_ridge_predicts_what_was_solved_and_learns_nothing():
    rng = np.random.default_rng(0)
    numbers, y = rng.normal(size=(30, 3, 2)), rng.normal(size=30)
    solution = solve_ridge(numbers.reshape(30, 6), y)
    model = multimodal.build("ridge", 7, 4, 3, 9, inputs=2, solution=solution)
    params = Params.from_arrays(model.init(rng), XP, "float64")
    batch = backend.to_device({"numbers": numbers, "targets": y}, XP)
    expected = numbers.reshape(30, 6) @ solution[0] + solution[1]
    np.testing.assert_allclose(host(model.predict(params, batch)), expected, atol=1e-12)
    assert not gradient(model, params, batch).any()


def test_an_unknown_mixer_is_the_users_error():
    with pytest.raises(UserError, match="unknown mixer 'sum'"):
        build("sum")
