"""One flat vector and its named views; Adam against a loop over arrays written from the papers."""

import math

import numpy as np
import pytest
from conftest import XP
from hypothesis import given
from hypothesis import strategies as st

from minisum import backend, init
from minisum.fast import host_adam
from minisum.ops.embedding import RowGradient
from minisum.optim import Adam, Average, best_epoch, learning_rate
from minisum.params import ALIGNMENT, Params, add, flatten
from minisum.shards import Workers
from minisum.strategies import seeds

SHAPES = {"a.W": (3, 5), "a.b": (5,), "scalar": (), "ab": (17,), "a.deep.W": (2, 3, 4)}


def host(x):
    return backend.to_numpy(x)


def drawn(rng, shapes, dtype="float64"):
    return Params.from_arrays({n: rng.normal(size=s) for n, s in shapes.items()}, XP, dtype)


# Params


def test_views_are_windows_on_the_vector():
    params = drawn(np.random.default_rng(0), SHAPES)
    layer = params["a"]
    layer["W"][1, 2] = 42
    assert (host(params.vector) == 42).sum() == 1
    layer["W"] += 1
    assert float(params.flat["a.W"][1, 2]) == 43 and (host(params.vector) == 43).sum() == 1
    before = {name: host(view).copy() for name, view in params.flat.items()}
    params.vector *= 2
    for name, view in params.flat.items():
        assert view.shape == SHAPES[name]
        np.testing.assert_array_equal(host(view), 2 * before[name])
    layer["b"] = XP.ones(5)
    assert (host(params.flat["a.b"]) == 1).all() and (host(params.vector) == 1).sum() == 5
    params["ab"] = XP.full(17, 3.0)
    assert (host(params.vector) == 3).sum() == 17


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=6), st.sampled_from(["f4", "f8"]))
def test_layout(shapes, dtype):
    """Views in order, apart, each at a multiple of ALIGNMENT numbers, and zeros between them."""
    params = Params({str(i): shape for i, shape in enumerate(shapes)}, XP, dtype)
    params.vector[...] = -1
    starts = []
    for i, (_, view) in enumerate(params.flat.items()):
        view[...] = i
        if view.size:
            where = np.flatnonzero(host(params.vector) == i)
            assert len(where) == view.size == where[-1] - where[0] + 1
            assert where[0] % ALIGNMENT == 0
            starts.append(where[0])
    assert starts == sorted(starts)
    assert params.count == sum(math.prod(s) for s in shapes)
    assert (host(params.vector) == -1).sum() == params.vector.size - params.count
    assert params.vector.size % ALIGNMENT == 0 and params.vector.dtype == dtype
    assert 4 * ALIGNMENT == 64  # bytes of float32


def test_from_arrays_copies_and_converts():
    source = np.arange(6).reshape(2, 3)
    params = Params.from_arrays({"x": source}, XP)
    assert params["x"].dtype == "float32"
    params["x"][...] = 0
    assert source.sum() == 15
    other = params.zeros_like()
    other["x"][...] = 1
    assert not host(params.vector).any() and other.vector.dtype == "float32"


def test_names():
    """Nested by the dots; nested and dotted shapes give the same layout."""
    params = drawn(np.random.default_rng(0), SHAPES)
    assert list(params.flat) == list(SHAPES) and list(params) == ["a", "scalar", "ab"]
    assert list(params["a"]) == ["W", "b", "deep"] and set(params["a"]["deep"]) == {"W"}
    for name, view in flatten(params).items():
        assert view is params.flat[name]
    params["a"]["deep"]["W"][...] = 7
    assert (host(params.flat["a.deep.W"]) == 7).all()
    with pytest.raises(KeyError):
        params["a"]["X"] = XP.ones(5)
    nested = {"a": {"W": (3, 5), "b": (5,), "deep": {"W": (2, 3, 4)}}, "scalar": (), "ab": (17,)}
    again = Params.from_arrays({"a": {"W": host(params["a"]["W"])}}, XP, "float64")
    assert again.shapes == {"a.W": (3, 5)} and (again["a"]["W"] == params["a"]["W"]).all()
    assert sorted(Params(nested, XP).shapes.items()) == sorted(SHAPES.items())


@given(seeds())
def test_adding_gradients(seed):
    """Arrays, rows of a table, and the first rows; what is left out stays."""
    rng = np.random.default_rng(seed)
    shapes = {"table": (4, 3), "layer": {"W": (2, 3), "b": (2,)}, "positions": (5, 3), "rest": (2,)}
    grads = Params(shapes, XP, "float64")
    grads.vector[...] = 1
    views = dict(grads.flat)
    ids, rows = rng.integers(0, 4, (2, 3)), rng.normal(size=(2, 3, 3))
    W, first = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    for _ in range(2):
        add(
            grads,
            {
                "table": RowGradient(XP.asarray(ids), XP.asarray(rows), (4, 3)),
                "layer": {"W": XP.asarray(W)},
                "positions": XP.asarray(first),
            },
        )
    table = np.ones((4, 3))
    np.add.at(table, ids, 2 * rows)
    np.testing.assert_allclose(host(grads["table"]), table, rtol=1e-12)
    np.testing.assert_allclose(host(grads["layer"]["W"]), 1 + 2 * W, rtol=1e-12)
    np.testing.assert_allclose(host(grads["positions"][:2]), 1 + 2 * first, rtol=1e-12)
    for untouched in (grads["positions"][2:], grads["layer"]["b"], grads["rest"]):
        assert (host(untouched) == 1).all()
    assert all(views[name] is view for name, view in grads.flat.items())


def test_weight_decay_marks_matrices():
    params = Params(SHAPES, XP)
    marks = Params(SHAPES, XP)
    marks.vector[...] = params.weights()
    assert {name for name, view in marks.flat.items() if host(view).all()} == {"a.W", "a.deep.W"}
    assert host(marks.vector).sum() == 15 + 24


# Adam


def adam_by_arrays(arrays, gradients, lr, betas, eps=1e-8, weight_decay=0.0):
    """Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2."""
    theta = {name: a.copy() for name, a in arrays.items()}
    m = {name: np.zeros_like(a) for name, a in arrays.items()}
    v = {name: np.zeros_like(a) for name, a in arrays.items()}
    beta1, beta2 = betas
    for t, g in enumerate(gradients, 1):
        for name in theta:
            m[name] = beta1 * m[name] + (1 - beta1) * g[name]
            v[name] = beta2 * v[name] + (1 - beta2) * g[name] ** 2
            m_hat = m[name] / (1 - beta1**t)
            v_hat = v[name] / (1 - beta2**t)
            decay = weight_decay * theta[name] if theta[name].ndim >= 2 else 0
            theta[name] = theta[name] - lr * (m_hat / (np.sqrt(v_hat) + eps) + decay)
    return theta, m, v


@given(
    seeds(), st.sampled_from([0.0, 0.1]), st.sampled_from([(0.9, 0.999), (0.5, 0.7), (0.0, 0.9)])
)
def test_adam_is_the_paper(seed, weight_decay, betas):
    rng = np.random.default_rng(seed)
    params = drawn(rng, SHAPES)
    arrays = {name: host(a).copy() for name, a in params.flat.items()}
    steps = [drawn(rng, SHAPES) for _ in range(4)]
    adam = Adam(params, betas=betas, weight_decay=weight_decay)
    for grads in steps:
        adam.step(grads, 0.03)
    gradients = [{name: host(g) for name, g in grads.flat.items()} for grads in steps]
    wanted, m, v = adam_by_arrays(arrays, gradients, 0.03, betas, weight_decay=weight_decay)
    for name, a in params.flat.items():
        np.testing.assert_allclose(host(a), wanted[name], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(host(adam.m.flat[name]), m[name], rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(host(adam.v.flat[name]), v[name], rtol=1e-12, atol=1e-15)
    assert adam.steps == 4


def test_the_first_step_is_as_long_as_the_learning_rate():
    """Bias correction: m̂ = g and √v̂ = |g| at step 1, whatever the size of g."""
    params = Params({"x": (4,)}, XP, "float64")
    grads = Params.from_arrays({"x": np.array([1e-3, -5.0, 1e6, 0.0])}, XP, "float64")
    Adam(params).step(grads, 0.1)
    np.testing.assert_allclose(host(params["x"]), [-0.1, 0.1, -0.1, 0.0], rtol=2e-5)


@pytest.mark.parametrize("clip", [{}, {"clip_value": 0.1}, {"clip_norm": 0.1}])
def test_the_gradient_and_the_gaps_stay_as_they_were(clip):
    rng = np.random.default_rng(0)
    params, grads = drawn(rng, SHAPES), drawn(rng, SHAPES)
    before = host(grads.vector).copy()
    adam = Adam(params, weight_decay=0.1, **clip)
    for _ in range(3):
        adam.step(grads, 0.1)
    np.testing.assert_array_equal(host(grads.vector), before)
    for mirror in (params, adam.m, adam.v):
        inside = mirror.zeros_like()
        for _, view in inside.flat.items():
            view[...] = 1
        assert not host(mirror.vector)[host(inside.vector) == 0].any()
        assert np.isfinite(host(mirror.vector)).all()


@given(seeds(), st.sampled_from([0.05, 1.0, 100.0]), st.sampled_from([None, 0.3, 50.0]))
def test_clipping(seed, clip_norm, clip_value):
    """Equal to handing in a gradient clipped by hand: by value first, then by norm."""
    rng = np.random.default_rng(seed)
    start, grads = drawn(rng, SHAPES), drawn(rng, SHAPES)
    g = host(grads.vector).copy()
    if clip_value is not None:
        g = np.clip(g, -clip_value, clip_value)
    length = np.sqrt((g * g).sum())
    if length > clip_norm:
        g = g * (clip_norm / length)
    by_hand = grads.zeros_like()
    by_hand.vector[...] = XP.asarray(g)
    results = []
    for gradient, options in [
        (grads, {"clip_norm": clip_norm, "clip_value": clip_value}), (by_hand, {})
    ]:  # fmt: skip
        params = start.zeros_like()
        params.vector[...] = start.vector
        adam = Adam(params, betas=(0.5, 0.9), **options)
        adam.step(gradient, 0.1)
        adam.step(grads.zeros_like(), 0.1)
        results.append((host(params.vector), host(adam.m.vector), host(adam.v.vector)))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("clip", [{}, {"clip_value": 0.1}, {"clip_value": 0.1, "clip_norm": 1.0}])
def test_clipping_hides_no_nan(clip):
    """The loop looks for parameters that are not finite; a clipped NaN would slip by."""
    params = Params.from_arrays({"w": np.ones(3)}, XP)
    grads = params.zeros_like()
    grads["w"][...] = XP.asarray([np.nan, 1.0, -1.0])
    Adam(params, **clip).step(grads, 0.1)
    assert np.isnan(backend.to_numpy(params["w"])[0])


def test_clipping_a_gradient_of_zero():
    params = Params({"x": (4,)}, XP, "float64")
    Adam(params, clip_norm=1.0).step(params.zeros_like(), 0.1)
    assert not host(params.vector).any()


@pytest.mark.skipif(XP is not np, reason="the GPU updates the vector in one piece")
@pytest.mark.parametrize("change", [-1, 0, 1])
def test_pieces_meet_without_a_seam(change, monkeypatch):
    size = 2 * host_adam.PIECE + change
    results = []
    for piece in (host_adam.PIECE, 10 * size):
        monkeypatch.setattr(host_adam, "PIECE", piece)
        rng = np.random.default_rng(0)
        params, grads = drawn(rng, {"x": (size,)}), drawn(rng, {"x": (size,)})
        adam = Adam(params, weight_decay=0.1, clip_norm=1.0)
        adam.step(grads, 0.1)
        results.append(params["x"])
    np.testing.assert_array_equal(*results)
    assert (results[0] != np.random.default_rng(0).normal(size=size)).all()


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_is_pytorchs(dtype, tolerance, weight_decay):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    shapes = {"W": (4, 3), "U": (2, 5)}
    params = drawn(rng, shapes, dtype)
    theirs = [torch.tensor(host(a), requires_grad=True) for _, a in params.flat.items()]
    kind = torch.optim.AdamW if weight_decay else torch.optim.Adam
    their_adam = kind(theirs, lr=0.05, weight_decay=weight_decay)
    adam = Adam(params, weight_decay=weight_decay)
    for _ in range(10):
        grads = drawn(rng, shapes, dtype)
        for tensor, (_, g) in zip(theirs, grads.flat.items(), strict=True):
            tensor.grad = torch.tensor(host(g))
        adam.step(grads, 0.05)
        their_adam.step()
    for tensor, (_, a) in zip(theirs, params.flat.items(), strict=True):
        np.testing.assert_allclose(host(a), tensor.detach().numpy(), rtol=tolerance, atol=tolerance)


def test_clip_norm_is_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    params, grads = drawn(rng, SHAPES), drawn(rng, SHAPES)
    theirs = torch.zeros(grads.vector.size, dtype=torch.float64)
    theirs.grad = torch.tensor(host(grads.vector))
    torch.nn.utils.clip_grad_norm_([theirs], 0.7)
    adam = Adam(params, betas=(0.0, 0.0), clip_norm=0.7)
    adam.step(grads, 0.0)
    np.testing.assert_allclose(host(adam.m.vector), theirs.grad.numpy(), rtol=1e-5)


@pytest.mark.skipif(XP is not np, reason="a GPU has no pieces to share out")
@pytest.mark.parametrize("size", [10, 5 * host_adam.PIECE + 3])
def test_the_number_of_workers_changes_no_bit(size):
    results = []
    for workers in (None, Workers(1), Workers(2), Workers(3)):
        rng = np.random.default_rng(0)
        params, grads = drawn(rng, {"x": (size,)}, "float32"), drawn(rng, {"x": (size,)}, "float32")
        adam = Adam(params, workers=workers)
        adam.step(grads, 0.1)
        adam.step(grads, 0.1)
        results.append(params.vector)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_workers_answer_in_order_and_raise():
    for count in (1, 2, 3):
        assert Workers(count).each(lambda worker: 10 * worker) == [10 * i for i in range(count)]
    assert Workers(3).each(lambda worker: worker, 2) == [0, 1]
    with pytest.raises(ZeroDivisionError):
        Workers(2).each(lambda worker: 1 / worker)


# The running average


def test_the_average_is_the_formula():
    rng = np.random.default_rng(0)
    params = drawn(rng, SHAPES)
    average = Average(params, 0.9)
    wanted = host(params.vector).copy()
    np.testing.assert_array_equal(host(average.params.vector), wanted)
    adam, alone = Adam(params), drawn(rng, SHAPES)
    alone.vector[...] = params.vector
    adam_alone, grads = Adam(alone), params.zeros_like()
    for step in range(1, 120):
        grads.vector[...] = XP.asarray(rng.normal(size=wanted.size))
        adam.step(grads, 0.1, average)
        adam_alone.step(grads, 0.1)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * host(params.vector)
        # The same bits on a host; a GPU has a kernel for each, whose roundings may differ.
        apart = 0 if XP is np else 1e-12
        np.testing.assert_allclose(host(params.vector), host(alone.vector), rtol=apart, atol=apart)
        np.testing.assert_allclose(host(average.params.vector), wanted, rtol=1e-12, atol=1e-14)


# Schedules


def test_constant():
    assert [learning_rate(s, 10, 0.5) for s in (0, 5, 9, 99)] == [0.5] * 4


def test_warmup_climbs_in_a_line():
    rates = [learning_rate(s, 10, 1.0, warmup=4) for s in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine():
    rates = [learning_rate(s, 12, 2.0, warmup=2, schedule="cosine") for s in range(13)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[7] == pytest.approx(1.0)
    assert rates[12] == pytest.approx(0.0, abs=1e-15)
    assert all(a > b for a, b in zip(rates[2:], rates[3:], strict=False))
    assert learning_rate(50, 12, 2.0, schedule="cosine") == pytest.approx(0.0, abs=1e-15)
    for warmup in (3, 4):
        assert learning_rate(3, 3, 1.0, warmup=warmup, schedule="cosine") == 1.0


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="unknown schedule 'linear'"):
        learning_rate(0, 10, 1.0, schedule="linear")


def test_raw_epsilon_is_kerass():
    """Keras: θ -= lr √(1 - β₂ᵗ) / (1 - β₁ᵗ) m / (√v + eps), written out."""
    params = Params.from_arrays({"a": np.array([1.0, -2.0, 3.0])}, XP, "float64")
    grads = params.zeros_like()
    adam = Adam(params, eps=0.01, raw_epsilon=True)
    theta, m, v = np.array([1.0, -2.0, 3.0]), np.zeros(3), np.zeros(3)
    for t in range(1, 4):
        g = np.array([0.1, 0.001, -1.0]) * t
        grads.vector[...] = 0
        grads.vector[:3] = XP.asarray(g)
        adam.step(grads, 0.1)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        theta -= 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 0.01)
        np.testing.assert_allclose(host(params["a"]), theta, rtol=1e-12)
    plain = Params.from_arrays({"a": np.array([1.0, -2.0, 3.0])}, XP, "float64")
    Adam(plain, eps=0.01).step(grads, 0.1)
    assert np.abs(host(plain["a"] - XP.asarray([1.0, -2.0, 3.0]))).max() > 0.09


@pytest.mark.parametrize(
    ("draw", "into", "out"), [("keras", 0.0095, 0.0541), ("pytorch", 0.0425, 0.03125)]
)
def test_first_values_of_a_librarys_attention(draw, into, out):
    """4 heads of 256 at width 256: the limits that uniform draws of 262,144 numbers approach."""
    layers = init.attention(np.random.default_rng(0), 256, 4, 256, draw)
    assert {name: layer["W"].shape for name, layer in layers.items()} == {
        "q": (1024, 256), "k": (1024, 256), "v": (1024, 256), "o": (256, 1024)
    }  # fmt: skip
    for name, layer in layers.items():
        limit = out if name == "o" else into
        assert np.abs(layer["W"]).max() == pytest.approx(limit, rel=0.01) and not layer["b"].any()


def test_the_best_epoch_has_the_highest_score_then_the_lowest_loss_then_came_first():
    for best, measured in (
        (1, [(0.8, 0.1), (0.9, 0.7)]),
        (2, [(0.9, 0.7), (0.8, 0.1), (0.9, 0.3), (0.9, 0.3)]),
        (2, [(math.nan, 0.1), (0.5, math.nan), (0.5, 0.9)]),
        (0, [(math.nan, math.nan)]),
    ):
        assert best_epoch(iter(measured)) == best


def test_first_values_of_pytorchs_attention():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(128, 8)
    ours = init.attention(np.random.default_rng(0), 128, 8, 16, "pytorch")
    assert not theirs.in_proj_bias.any() and not theirs.out_proj.bias.any()
    packed = np.concatenate([ours[c]["W"] for c in "qkv"])
    for mine, weight in ((packed, theirs.in_proj_weight), (ours["o"]["W"], theirs.out_proj.weight)):
        weight = weight.detach().numpy()
        assert mine.shape == weight.shape
        assert np.abs(mine).max() == pytest.approx(np.abs(weight).max(), rel=0.01)
        assert mine.std() == pytest.approx(weight.std(), rel=0.02)
