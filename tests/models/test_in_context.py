"""Linear self-attention that regresses in context: gradients, and two forms that must agree."""

import numpy as np
import pytest
from conftest import XP
from hypothesis import given
from hypothesis import strategies as st
from text_models import assert_backward_adds, assert_writes_to_nothing, gradient, host

from minisum import backend
from minisum.gradcheck import gradcheck, grid, loss_op
from minisum.models.in_context import FORMS, InContextRegressor, by_gram, by_tokens
from minisum.params import Params

SHAPES = {
    "full": {"P": (4, 4), "Q": (4, 4)}, "free": {"omega": (2, 2)}, "head": {"p": (2,), "q": (2,)},
    "gd": {"p": (2,)},
}  # fmt: skip
DIMS, PAIRS = 3, 5
forms = pytest.mark.parametrize("form", FORMS)
seeds = st.integers(0, 2**32 - 1)


def drawn(rng, form, layers, models=2, draw=None):
    """[parameters of a layer] * layers; of moderate size, so that seven layers do not explode."""
    draw = draw or (lambda *shape: 0.4 * rng.normal(size=shape))
    names = SHAPES[form].items()
    return [{name: draw(models, *shape) for name, shape in names} for _ in range(layers)]


def draw_tokens(rng, models=2, rows=3):
    E = rng.normal(size=(models, rows, PAIRS + 1, DIMS + 1))
    E[..., -1, -1] = 0
    return E


def gram(E):
    examples = E[..., :-1, :]
    return examples.swapaxes(-1, -2) @ examples / (E.shape[-2] - 1)


def on_device(params):
    return [{name: XP.asarray(a) for name, a in own.items()} for own in params]


def flat(params):
    return [a for own in params for a in own.values()]


def nested(like, arrays):
    arrays = iter(arrays)
    return [{name: next(arrays) for name in own} for own in like]


def as_op(function, form, like):
    """by_gram or by_tokens as an op of all layers' parameters and the tokens."""

    def op(*arrays):
        *arrays, E = arrays
        params, examples = nested(like, arrays), E[..., :-1, :]
        if function is by_tokens:
            y, back = by_tokens(FORMS[form], params, E)
        else:
            y, back = by_gram(FORMS[form], params, gram(E))

        def backward(dy):
            gradients, dx = back(dy)
            if function is by_gram:
                dE = XP.zeros_like(E)
                dE[..., :-1, :] = examples @ (dx + dx.swapaxes(-1, -2)) / PAIRS
                dx = dE
            return *flat(gradients), dx

        return y, backward

    return op


@forms
def test_a_layer_is_exact(form):
    """A layer is linear in each of its arguments alone, so == is the test."""
    rng = np.random.default_rng(1)
    params = on_device(drawn(rng, form, 1, draw=lambda *shape: grid(rng, shape)))[0]

    def op(*arrays):
        *arrays, G = arrays
        A, back = FORMS[form](nested([params], arrays)[0], G)

        def backward(dA):
            dG, gradients = back(dA)
            return *gradients.values(), dG

        return A, backward

    assert gradcheck(op, *params.values(), XP.asarray(grid(rng, (2, 3, 4, 4))), exact=True)


@forms
@pytest.mark.parametrize("layers", [1, 2, 3, 7])
@pytest.mark.parametrize("function", [by_gram, by_tokens])
def test_gradients(form, layers, function):
    rng = np.random.default_rng(layers)
    params = on_device(drawn(rng, form, layers))
    E = XP.asarray(draw_tokens(rng))
    assert gradcheck(as_op(function, form, params), *flat(params), E, entries=4)


@forms
@given(seed=seeds, layers=st.integers(1, 5))
def test_tokens_and_gram_form_agree(form, seed, layers):
    """Answers are ⟨ŵ, x_t⟩, and the gradients those of the same loss, to rounding."""
    rng = np.random.default_rng(seed)
    params, E = on_device(drawn(rng, form, layers)), XP.asarray(draw_tokens(rng))
    u, asked = XP.asarray(rng.normal(size=E.shape[:2])), E[..., -1, :-1]
    y, back_tokens = by_tokens(FORMS[form], params, E)
    w, back_gram = by_gram(FORMS[form], params, gram(E))
    scale = 1 + abs(host(w)).max()
    np.testing.assert_allclose(host((w * asked).sum(axis=-1)), host(y), atol=1e-12 * scale)
    plain, fast = back_tokens(u)[0], back_gram(u[..., None] * asked)[0]
    for one, other in zip(flat(plain), flat(fast), strict=True):
        size = 1 + abs(host(one)).max()
        np.testing.assert_allclose(host(one), host(other), atol=1e-11 * size)


def test_tokens_are_the_published_formula():
    """e_i ← e_i + Σ_j P e_j (e_jᵀ Q e_i) / n over examples alone, written out."""
    rng = np.random.default_rng(0)
    params, E = drawn(rng, "full", 2, models=1), draw_tokens(rng, models=1, rows=1)
    tokens = list(E[0, 0])
    for own in params:
        P, Q, examples = own["P"][0], own["Q"][0], tokens[:-1]
        tokens = [e + sum(P @ e_j * (e_j @ Q @ e) for e_j in examples) / PAIRS for e in tokens]
    y, _ = by_tokens(FORMS["full"], on_device(params), XP.asarray(E))
    np.testing.assert_allclose(host(y)[0, 0], -tokens[-1][-1], rtol=1e-12)


def test_the_forms_are_diagonal_cases_of_the_full_one():
    """One head is P = diag(p_x, .., p_y), Q alike; GD++ has q = (1, 0); four scalars hold both."""
    rng = np.random.default_rng(0)
    G = XP.asarray(gram(draw_tokens(rng)))
    p, q = rng.normal(size=(2, 2, 2))
    diagonal = [np.stack([np.diag([*[x] * DIMS, y]) for x, y in part]) for part in (p, q)]

    def A(form, **params):
        return host(FORMS[form]({name: XP.asarray(a) for name, a in params.items()}, G)[0])

    full = A("full", P=diagonal[0], Q=diagonal[1])
    np.testing.assert_allclose(A("head", p=p, q=q), full, atol=1e-14)
    np.testing.assert_allclose(A("free", omega=p[:, :, None] * q[:, None]), full, atol=1e-14)
    two = A("head", p=p, q=np.tile([1.0, 0.0], (2, 1)))
    np.testing.assert_array_equal(A("gd", p=p), two)


@pytest.mark.parametrize("form", ["free", "head", "gd"])
def test_scalars_see_no_axes(form):
    """x turned by R gives weights turned by R: scalars treat all directions alike."""
    rng = np.random.default_rng(0)
    params, E = on_device(drawn(rng, form, 4)), draw_tokens(rng)
    R = np.linalg.qr(rng.normal(size=(DIMS, DIMS)))[0]
    turned = E.copy()
    turned[..., :-1] = E[..., :-1] @ R.T
    w, w_turned = (host(by_gram(FORMS[form], params, XP.asarray(gram(e)))[0]) for e in (E, turned))
    np.testing.assert_allclose(w_turned, w @ R.T, rtol=1e-9, atol=1e-12)


# The batch of models


def batch_of(rng, model, shared=False):
    E = draw_tokens(rng, 1 if shared else model.models)
    targets = rng.normal(size=(*E.shape[:2], DIMS))
    return backend.to_device({"grams": gram(E), "targets": targets, "x": E}, XP)


def trained(form, layers=3, models=2, seed=0):
    model = InContextRegressor(form, layers, DIMS, models)
    arrays = model.init(np.random.default_rng(seed))
    assert {name: a.shape[2:] for name, a in arrays.items()} == SHAPES[form]
    assert all(a.shape[:2] == (models, layers) for a in arrays.values())
    return model, Params.from_arrays(arrays, XP, np.float64)


@forms
@pytest.mark.parametrize("shared", [False, True])
def test_loss(form, shared):
    """The gradient, that it is added, and that nothing given is changed."""
    rng = np.random.default_rng(0)
    model, params = trained(form)
    batch = batch_of(rng, model, shared)
    assert gradcheck(loss_op(model, params, batch), params.vector.copy())
    assert_backward_adds(model, params, batch)
    assert_writes_to_nothing(model, params, batch)
    w = host(model.weights(params, batch["grams"]))
    expected = ((w - host(batch["targets"])) ** 2).sum() / 2 / 3
    np.testing.assert_allclose(float(model.loss(params, batch, 3)[0]), expected, rtol=1e-12)
    answers = host((model.weights(params, batch["grams"]) * batch["x"][..., -1, :-1]).sum(axis=-1))
    np.testing.assert_allclose(host(model.predict(params, batch)), answers, atol=1e-12)


@forms
def test_models_of_a_batch_do_not_meet(form):
    """Each model's gradient is the one that it has alone."""
    rng = np.random.default_rng(0)
    model, params = trained(form, models=3)
    batch = batch_of(rng, model)
    together = params.zeros_like()
    together.vector[...] = XP.asarray(gradient(model, params, batch))
    for k in range(3):
        alone = InContextRegressor(form, 3, DIMS)
        own = {name: host(a[k : k + 1]) for name, a in params.flat.items()}
        own = Params.from_arrays(own, XP, np.float64)
        found = own.zeros_like()
        found.vector[...] = XP.asarray(
            gradient(alone, own, {name: a[k : k + 1] for name, a in batch.items()})
        )
        for name, a in found.flat.items():
            np.testing.assert_allclose(host(a)[0], host(together.flat[name])[k], rtol=1e-12)
