"""The language model: its gradient, its twin in PyTorch, and what causality and memory promise."""

from itertools import pairwise

import numpy as np
import pytest
from agreement import assert_close
from conftest import XP
from hypothesis import given
from hypothesis import strategies as st

from minisum import backend, ops
from minisum.documents import Documents
from minisum.errors import UserError
from minisum.layers import token_network
from minisum.mixers import parse_pattern
from minisum.models.language_model import FFNS, NORMS, LanguageModel, causal_block
from minisum.ops.losses import score_targets
from minisum.optim import Adam
from minisum.params import Params, flatten
from minisum.shards import Shards
from minisum.strategies import seeds

PATTERNS = ("summation", "summation*2,attention", "projection,attention", "attention*2")
V, D, MAX_LEN = 11, 8, 12


def small_model(pattern, seed=0, dtype=np.float64, **options):
    """A model and its parameters, no number of which is 0 or 1."""
    model = LanguageModel(V, D, pattern, MAX_LEN, **{"heads": 2, **options})
    rng = np.random.default_rng(seed)
    drawn = flatten(model.init(rng))
    arrays = {name: a + rng.normal(0, 0.1, a.shape) for name, a in drawn.items()}
    return model, Params.from_arrays(arrays, xp=XP, dtype=dtype)


def draw_batch(rng, B=3, n=7, low=-1, starts=False):
    batch = {"ids": rng.integers(0, V, (B, n)), "targets": rng.integers(low, V, (B, n))}
    if starts:
        batch["starts"] = rng.random((B, n)) < 0.3
    return backend.to_device(batch, XP)


def check_gradient(value, arrays, gradients, seed):
    """Compare the slope of `value(arrays)` along one random direction in each array.

    ReLU has kinks, and a difference taken across one is no derivative. A step small enough crosses
    none, and a kink that is nearer stands on one side: so one of three sizes must agree to 1e-6, to
    both sides or (extrapolated, its error then is of the second order too) to one of them. A wrong
    gradient agrees with none.
    """
    rng = np.random.default_rng([seed, 2])
    for name, array in arrays.items():
        signs = rng.choice([-1.0, 1.0], array.shape)
        direction = XP.asarray(signs * rng.uniform(0.5, 1, array.shape))
        analytic = float((gradients[name] * direction).sum())

        def along(distance, name=name, array=array, direction=direction):
            return float(value({**arrays, name: array + distance * direction}))

        errors = []
        for step, slope in slopes(along):
            errors.append(abs(slope - analytic) - 1e-6 * abs(analytic) - 1e-15 / step)
            if errors[-1] < 1e-9:
                break
        assert min(errors) < 1e-9, (name, analytic, errors)


def slopes(along):
    """(step, slope of `along` at 0): to both sides, then to each of them, by ever shorter steps."""
    for step in (1e-5, 1e-6, 1e-7):
        up, down = along(step), along(-step)
        yield step, (up - down) / (2 * step)
        half_up, here, half_down = along(0.5 * step), along(0.0), along(-0.5 * step)
        yield step, (4 * half_up - 3 * here - up) / step
        yield step, (3 * here - 4 * half_down + down) / step


def check_model(model, params, batch, seed):
    grads = params.zeros_like()
    loss, back = model.loss(params, batch, 5)
    back(grads)
    arrays = {name: array.copy() for name, array in params.flat.items()}
    learned = {name: g for name, g in grads.flat.items() if name != "positions"}
    assert all(abs(gradient).max() > 0 for gradient in learned.values())

    def value(arrays):
        here = params.zeros_like()
        for name, array in arrays.items():
            here.flat[name][...] = array
        return model.loss(here, batch, 5)[0]

    check_gradient(value, arrays, grads.flat, seed)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(seed=seeds(), starts=st.booleans(), tied=st.booleans())
def test_gradient_of_the_whole_model(pattern, seed, starts, tied):
    model, params = small_model(pattern, seed, tied=tied)
    batch = draw_batch(np.random.default_rng(seed), low=0, starts=starts)
    check_model(model, params, batch, seed)


@pytest.mark.parametrize("positions", ["multiply", "add", "none"])
def test_gradient_with_every_kind_of_positions(positions):
    model, params = small_model("summation", seed=3, positions=positions, d_ff=5)
    check_model(model, params, draw_batch(np.random.default_rng(4), starts=True), 0)
    assert ("positions" in params) == (positions != "none")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("ffn", FFNS)
def test_gradient_with_every_kind_of_block(norm, ffn):
    model, params = small_model("summation,window:window=2", 1, norm=norm, ffn=ffn)
    check_model(model, params, draw_batch(np.random.default_rng(2)), 3)
    centred, gated = ("norm.bias" in params.flat), ("blocks.0.gate.W" in params.flat)
    assert (centred, gated) == (norm != "rms", ffn == "swiglu")


def test_a_gated_token_network_is_swiglu():
    """Shazeer 2020, equation 6, written out."""
    rng = np.random.default_rng(0)
    x, gate, up = (XP.asarray(rng.normal(size=s)) for s in ((2, 3, 4), (5, 4), (5, 4)))
    down = XP.asarray(rng.normal(size=(4, 5)))
    params = {"gate": {"W": gate}, "up": {"W": up}, "down": {"W": down}}
    y, _ = token_network(params, x, ops.silu)
    z = x @ gate.T
    assert_close(y, ((z / (1 + XP.exp(-z))) * (x @ up.T)) @ down.T)


@pytest.mark.parametrize("name", ["summation", "projection", "attention"])
@given(seed=seeds())
def test_gradient_of_a_block(name, seed):
    rng = np.random.default_rng(seed)
    block = causal_block(name, D, 2, MAX_LEN, 2 * D)
    arrays = {key: XP.asarray(a) for key, a in flatten(block.init(rng)).items()}
    arrays["x"] = XP.asarray(rng.normal(0, 1, (2, 4, D)))
    cotangent = XP.asarray(rng.normal(0, 1, (2, 4, D)))

    def run(arrays):
        return block(Params.from_arrays(arrays, XP, "float64"), arrays["x"])

    dx, dparams = run(arrays)[1](cotangent)
    gradients = flatten(dparams) | {"x": dx}
    check_gradient(lambda at: (run(at)[0] * cotangent).sum(), arrays, gradients, seed)


@given(
    B=st.integers(1, 3), n=st.integers(1, 6), words=st.integers(2, 9), biased=st.booleans(),
    seed=seeds(),
)  # fmt: skip
def test_scores_of_targets_sum_to_the_loss(B, n, words, biased, seed):
    rng = np.random.default_rng(seed)
    x, W = (XP.asarray(rng.normal(size=shape)) for shape in ((B, n, D), (words, D)))
    b = XP.asarray(rng.normal(size=words)) if biased else None
    targets = XP.asarray(rng.integers(-1, words, (B, n)))
    loss, _ = ops.linear_cross_entropy(x, W, b, targets, total=3)
    scores, _ = ops.linear(x, W, b)
    scored = backend.to_numpy(score_targets(x, W, b, targets))
    counted = backend.to_numpy(targets >= 0)
    np.testing.assert_allclose(scored[..., 0].sum() / 3, float(loss), rtol=1e-12, atol=1e-14)
    hits = backend.to_numpy((scores.argmax(axis=-1) == targets) & (targets >= 0))
    np.testing.assert_array_equal(scored[..., 1], hits)
    assert not scored[~counted].any()


def test_the_loss_in_blocks_never_holds_all_scores(monkeypatch):
    """What a call allocates stays far below B·n·V numbers, and NaN in an ignored row is ignored."""
    if XP is not np:
        pytest.skip("counts the host's allocations")
    import tracemalloc

    monkeypatch.setattr("minisum.fast.blocked_losses.BLOCK", 16)
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=(4, 512, 4)), rng.normal(size=(1000, 4))
    targets = rng.integers(0, 1000, (4, 512))
    targets[2], x[2] = -1, np.nan
    tracemalloc.start()
    loss, back = ops.linear_cross_entropy(x, W, np.zeros(1000), targets)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.shape[0] * x.shape[1] * 1000 * 8 / 10
    dx, dW, db, _ = back(1.0)
    assert np.isfinite(loss) and np.isfinite(dW).all() and np.isfinite(db).all()
    assert (dx[2] == 0).all() and np.isfinite(dx).all()


@pytest.mark.parametrize("pattern", PATTERNS + ("tssa", "gated_sum,retnet"))
@given(seed=seeds(), n=st.integers(1, 20))
def test_any_split_of_a_text_gives_the_scores_of_the_whole(pattern, seed, n):
    """Also past the trained length, where whole and pieces follow the same rule."""
    pattern_options = {} if n <= MAX_LEN else {"positions": "multiply"}
    model, params = small_model(pattern, seed, **pattern_options)
    rng = np.random.default_rng(seed)
    ids = XP.asarray(rng.integers(0, V, (2, min(n, MAX_LEN) if "tssa" in pattern else n)))
    whole, _ = model.step(params, ids, every=True)
    cuts = sorted({0, ids.shape[1], *rng.integers(0, ids.shape[1], 3).tolist()})
    state, pieces = None, []
    for start, stop in pairwise(cuts):
        scores, state = model.step(params, ids[:, start:stop], state, every=True)
        pieces.append(scores)
    pieced = backend.to_numpy(XP.concatenate(pieces, axis=1))
    np.testing.assert_allclose(pieced, backend.to_numpy(whole), rtol=1e-9, atol=1e-9)
    last, _ = model.step(params, ids)
    np.testing.assert_allclose(*map(backend.to_numpy, (last, whole[:, -1])), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_step_and_predict_agree(pattern):
    model, params = small_model(pattern)
    batch = draw_batch(np.random.default_rng(0), low=0)
    scores = backend.to_numpy(model.step(params, batch["ids"], every=True)[0])
    targets = backend.to_numpy(batch["targets"])[..., None]
    log_p = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    nll = -np.take_along_axis(log_p, targets, axis=-1)[..., 0]
    scored = backend.to_numpy(model.predict(params, batch))
    np.testing.assert_allclose(scored[..., 0], nll, rtol=1e-10)
    np.testing.assert_array_equal(scored[..., 1], scores.argmax(axis=-1) == targets[..., 0])


@pytest.mark.parametrize("pattern", PATTERNS)
@given(seed=seeds())
def test_a_later_token_cannot_change_an_earlier_score(pattern, seed):
    model, params = small_model(pattern, seed, dtype=np.float32)
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, V, (2, 9))
    s = int(rng.integers(1, 9))
    changed = ids.copy()
    changed[:, s:] = rng.integers(0, V, (2, 9 - s))
    targets = rng.integers(0, V, (2, 9))
    before, after = (
        model.predict(params, backend.to_device({"ids": read, "targets": targets}, XP))
        for read in (ids, changed)
    )
    assert (before[:, :s] == after[:, :s]).all()


@pytest.mark.parametrize("pattern", PATTERNS + ("tssa", "deltanet"))
@given(seed=seeds())
def test_packed_documents_equal_documents_alone(pattern, seed):
    model, params = small_model(pattern, seed)
    rng = np.random.default_rng(seed)
    batch = draw_batch(rng, B=2, n=10, low=0, starts=True)
    packed = backend.to_numpy(model.predict(params, batch))
    host = {name: backend.to_numpy(array) for name, array in batch.items()}
    for row in range(2):
        borders = [0, *np.flatnonzero(host["starts"][row, 1:]) + 1, 10]
        for start, stop in pairwise(borders):
            alone = {name: host[name][row : row + 1, start:stop] for name in ("ids", "targets")}
            scored = backend.to_numpy(model.predict(params, backend.to_device(alone, XP)))
            np.testing.assert_allclose(packed[row, start:stop], scored[0], rtol=1e-9, atol=1e-12)


@given(B=st.integers(1, 3), n=st.integers(1, 8), seed=seeds())
def test_taking_windows_apart_and_together_moves_numbers_only(B, n, seed):
    rng = np.random.default_rng(seed)
    documents = Documents(XP.asarray(rng.random((B, n)) < 0.4))
    x = XP.asarray(rng.normal(size=(B, n, 3)))
    rows = documents.apart(x)
    assert (documents.together(rows) == x).all() and (rows[~documents.mask] == 0).all()
    # One is the other's adjoint, padding apart: <apart(x), r> = <x, together(r)>.
    r = XP.asarray(rng.normal(size=rows.shape))
    np.testing.assert_allclose(float((rows * r).sum()), float((x * documents.together(r)).sum()))


def test_right_padding_changes_nothing():
    model, params = small_model("summation,attention")
    batch = draw_batch(np.random.default_rng(1), n=6, low=0)
    longer = {"ids": XP.zeros((3, 10), int), "targets": XP.full((3, 10), -1)}
    for name, array in batch.items():
        longer[name][:, :6] = array
    losses, gradients = [], []
    for each in (batch, longer):
        grads = params.zeros_like()
        losses.append(float(Shards(model).loss_and_grads(params, grads, each)))
        gradients.append(backend.to_numpy(grads.vector))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    np.testing.assert_allclose(*gradients, rtol=1e-9, atol=1e-13)


def test_shards_add_up_to_the_batch():
    model, params = small_model("summation*2,attention")
    batch = draw_batch(np.random.default_rng(2), B=5)
    whole, pieces = params.zeros_like(), params.zeros_like()
    loss = float(Shards(model).loss_and_grads(params, whole, batch))
    assert loss == pytest.approx(float(Shards(model, rows=2).loss_and_grads(params, pieces, batch)))
    np.testing.assert_allclose(*map(backend.to_numpy, (whole.vector, pieces.vector)), atol=1e-12)


def state_bytes(state):
    """Bytes of the arrays in a state."""
    if isinstance(state, (list, tuple)):
        return sum(state_bytes(part) for part in state)
    return getattr(state, "nbytes", 0)


def test_memory_of_summation_does_not_grow():
    model, params = small_model("summation*3", dtype=np.float32)
    sizes = []
    state = None
    for count in (1, 5, 400):
        _, state = model.step(params, XP.zeros((1, count), int), state)
        sizes.append(state_bytes(state[1]))
    assert sizes == [3 * D * 4] * 3
    assert state_bytes(state) == 4 * D * 4  # and the average position
    attention, attention_params = small_model("attention", dtype=np.float32)
    _, state = attention.step(attention_params, XP.zeros((1, 7), int))
    assert state_bytes(state) == 2 * 7 * D * 4


def test_past_the_trained_length_sums_keep_their_size_and_positions_are_the_average():
    """By hand, for one layer: token t > max_len reads max_len / t of the sum of all before it."""
    model, params = small_model("summation", sum_scale="none")
    ids = XP.asarray(np.random.default_rng(0).integers(0, V, (1, 3 * MAX_LEN)))
    scores, _ = model.step(params, ids)
    P = params["positions"]
    places = XP.concatenate([P, XP.broadcast_to(P.mean(axis=0), (2 * MAX_LEN, D))])
    x = params["embedding"][ids[0]] * (places + 2.0)
    block = params["blocks"]["0"]
    mixer = block["mixer"]
    u = XP.maximum(XP.maximum(x @ mixer["project1"]["W"].T, 0) @ mixer["project2"]["W"].T, 0)
    mixed = u.sum(axis=0) @ mixer["o"]["W"].T + mixer["o"]["b"]

    def norm(x, layer):
        x = (x - x.mean()) / XP.sqrt(x.var() + 1e-5)
        return x * layer["gain"] + layer["bias"]

    z = norm(x[-1] + mixed / 3, block["norm1"])
    inner = XP.maximum(z @ block["up"]["W"].T + block["up"]["b"], 0)
    y = norm(z + inner @ block["down"]["W"].T + block["down"]["b"], block["norm2"])
    expected = norm(y, params["norm"]) @ params["head"]["W"].T + params["head"]["b"]
    np.testing.assert_allclose(*map(backend.to_numpy, (scores[0], expected)), rtol=1e-9)


@pytest.mark.parametrize("sum_scale", ["none", "length"])
def test_ten_steps_agree_with_a_pytorch_twin(sum_scale):
    torch = pytest.importorskip("torch")
    from torch.nn import functional

    model, params = small_model("summation*2,attention", seed=5, sum_scale=sum_scale)
    grads, adam, runner = params.zeros_like(), Adam(params), Shards(model)
    weights = {
        name: torch.tensor(backend.to_numpy(a).copy(), requires_grad=True)
        for name, a in params.flat.items()
    }

    def norm(x, name):
        return functional.layer_norm(x, (D,), weights[f"{name}.gain"], weights[f"{name}.bias"])

    def linear(x, name):
        return functional.linear(x, weights[f"{name}.W"], weights.get(f"{name}.b"))

    def mix(x, name, kind):
        if kind == "summation":
            u = functional.relu(linear(x, f"{name}.project1"))
            u = functional.relu(linear(u, f"{name}.project2"))
            summed = linear(torch.cumsum(u, 1), f"{name}.o")
            return summed / MAX_LEN if sum_scale == "length" else summed
        q, k, v = (
            linear(x, f"{name}.{letter}").reshape(*x.shape[:2], 2, D // 2).transpose(1, 2)
            for letter in "qkv"
        )
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return linear(seen.transpose(1, 2).reshape(x.shape), f"{name}.o")

    def twin_loss(ids, targets):
        x = weights["embedding"][ids] * (weights["positions"][: ids.shape[1]] + 2.0)
        for i, kind in enumerate(["summation", "summation", "attention"]):
            name = f"blocks.{i}"
            z = norm(x + mix(x, f"{name}.mixer", kind), f"{name}.norm1")
            inner = functional.relu(linear(z, f"{name}.up"))
            x = norm(z + linear(inner, f"{name}.down"), f"{name}.norm2")
        scores = linear(norm(x, "norm"), "head")
        return functional.cross_entropy(scores.reshape(-1, V), targets.reshape(-1), ignore_index=-1)

    optimiser = torch.optim.Adam(weights.values(), lr=1e-2)
    for step in range(10):
        batch = draw_batch(np.random.default_rng([6, step]))
        loss = runner.loss_and_grads(params, grads, batch)
        adam.step(grads, 1e-2)
        ids, targets = (torch.tensor(backend.to_numpy(batch[name])) for name in ("ids", "targets"))
        optimiser.zero_grad()
        theirs = twin_loss(ids, targets)
        theirs.backward()
        optimiser.step()
        assert float(loss) == pytest.approx(theirs.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("pattern", "word"),
    [("somation", "somation"), ("summation*0", "0"), ("summation*x", "x"), ("", "''")],
)
def test_a_wrong_pattern_is_refused_by_name(pattern, word):
    with pytest.raises(UserError, match="layer pattern") as error:
        parse_pattern(pattern)
    assert word in str(error.value)


def test_patterns():
    assert parse_pattern("summation*3, attention") == ["summation"] * 3 + ["attention"]
    assert parse_pattern("projection * 2,attention")[:2] == ["projection"] * 2
    assert LanguageModel(V, D, "attention", 4, heads=2).positions == "add"
    assert LanguageModel(V, D, "summation,attention", 4, heads=2).positions == "multiply"


def test_a_window_longer_than_the_positions_is_refused():
    model, params = small_model("summation")
    with pytest.raises(UserError, match="13 tokens"):
        model.predict(params, draw_batch(np.random.default_rng(0), n=13))
