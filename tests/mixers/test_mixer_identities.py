"""Equations that tie the mixers to each other and to what their papers say of them."""

import importlib

import numpy as np
import pytest
from conftest import XP
from hypothesis import given
from hypothesis import strategies as st

from minisum import mixers, ops
from minisum.backend import to_numpy
from minisum.gradcheck import gradcheck
from minisum.mixers.base import keep_real
from minisum.mixers.tssa import running_token_statistics, token_statistics
from minisum.params import Params
from minisum.strategies import cases

sizes = cases(XP, B=(1, 2), n=(1, 9), H=(1, 2), h=(1, 4), d=(1, 4))

WITHOUT_POSITIONS = (
    "summation",
    "running_mean",
    "aft_simple",
    "projection",
    "attention",
    "tssa",
    "simpletron",
    "linear_attention",
)


def close(a, b):
    np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-9, atol=1e-11)


def same(a, b):
    np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def qkv(case):
    return case.normal("B H n h"), case.normal("B H n h"), case.normal("B H n d")


def unit(k):
    return k / XP.sqrt((k * k).sum(axis=-1, keepdims=True))


def build(name, case, **options):
    """A mixer with two numbers a head, and its first values."""
    mixer = mixers.build(name, width=2 * case.H, heads=case.H, max_len=16, **options)
    return mixer, Params.from_arrays(mixer.init(np.random.default_rng(case.seed)), XP, "float64")


@pytest.mark.parametrize("name", WITHOUT_POSITIONS)
@given(case=sizes)
def test_the_order_of_tokens_does_not_matter(name, case):
    mixer, params = build(name, case)
    x = XP.asarray(case.rng.normal(size=(case.B, case.n, mixer.width)))
    order = case.rng.permutation(case.n)
    close(mixer(params, x[:, order])[0], mixer(params, x)[0][:, order])


@given(case=sizes)
def test_no_decay_is_a_decay_of_one(case):
    """Gated linear attention without gates, retention with γ = 1, linear attention's numerator."""
    q, k, v = qkv(case)
    (plain, state), _ = ops.causal_product(q, k, v)
    for letters in ("B H n 1", "B H n h"):
        zero = XP.zeros(case.shape(letters))
        (gated, gated_state), _ = ops.causal_product(q, k, v, zero)
        close(plain, gated)
        close(state, gated_state)
    close(plain, XP.tril(q @ k.swapaxes(-1, -2)) @ v)
    close(state, ops.full_product(q, k, v)[0][1])


@given(case=sizes)
def test_the_gated_delta_rule_without_gate_is_the_delta_rule(case):
    q, k, v = qkv(case)
    beta = case.uniform("B H n 1", 0, 1)
    (plain, state), _ = ops.delta_rule(q, unit(k), v, beta)
    zero = XP.zeros_like(beta)
    (gated, gated_state), _ = ops.delta_rule(q, unit(k), v, beta, zero)
    close(plain, gated)
    close(state, gated_state)


@given(case=sizes)
def test_equal_decays_of_all_key_channels_are_one_decay_a_head(case):
    q, k, v = qkv(case)
    beta, decay = case.uniform("B H n 1", 0, 2), case.uniform("B H n 1", -2, 0)
    ((one, state), back_one), ((each, states), back_each) = (
        ops.delta_rule(q, unit(k), v, beta, a)
        for a in (decay, XP.broadcast_to(decay, q.shape).copy())
    )
    close(one, each)
    close(state, states)
    dy = case.normal("B H n d"), case.normal("B H h d")
    (*inputs, ddecay, _), (*inputs_again, ddecays, _) = back_one(dy), back_each(dy)
    for a, b in zip(inputs, inputs_again, strict=True):
        close(a, b)
    close(ddecay, ddecays.sum(axis=-1, keepdims=True))


@given(case=sizes)
def test_a_removal_key_equal_to_the_key_is_none(case):
    """Its gradient and the key's add up to that of the key that plays both parts."""
    q, k, v = qkv(case)
    beta, decay = case.uniform("B H n 1", 0, 2), case.uniform("B H n h", -2, 0)
    (y, state), back = ops.delta_rule(q, unit(k), v, beta, decay)
    (again, state_again), back_again = ops.delta_rule(q, unit(k), v, beta, decay, None, unit(k))
    close(y, again)
    close(state, state_again)
    dy = case.normal("B H n d"), None
    (_, dk, *others, _), (_, dkey, *others_again, _, dremoval) = back(dy), back_again(dy)
    close(dk, dkey + dremoval)
    for a, b in zip(others, others_again, strict=True):
        close(a, b)


@given(case=sizes)
def test_removal_along_one_key_and_writing_along_another_are_two_steps(case):
    """S = S̃ - d.T @ (p @ S̃) + k.T @ v, the recurrence of RWKV-7 with p, d and k of its own."""
    shape = case.shape("B H n h")
    p, d, k, decay = (case.uniform("B H n h", -1, 0) for _ in range(4))
    q, v, S = case.normal("B H n h"), case.normal("B H n d"), case.normal("B H h d")

    def both(first, second):
        return XP.stack([first, second], axis=3).reshape(*shape[:2], -1, first.shape[-1])

    nothing, one = XP.zeros(shape), XP.ones(case.shape("B H n 1"))
    steps = (both(nothing, q), both(d, k), both(0 * v, v), both(one, one), both(decay, nothing))
    (y, last), _ = ops.delta_rule(*steps, S, both(p, nothing))
    for t in range(case.n):
        row = (slice(None), slice(None), slice(t, t + 1))
        S = XP.exp(decay[row]).swapaxes(-1, -2) * S
        S = S - d[row].swapaxes(-1, -2) @ (p[row] @ S) + k[row].swapaxes(-1, -2) @ v[row]
        close(y[:, :, 2 * t + 1], (q[row] @ S)[:, :, 0])
    close(last, S)


@given(case=sizes)
def test_a_beta_of_two_counts_modulo_two(case):
    """One key, turned around by every 1: what stands under it is 2 v after an odd number of them.

    Without training, to the last bit, and at any length.
    """
    bits = XP.asarray(case.rng.integers(0, 2, case.shape("B H n 1"))).astype(float)
    k = XP.zeros((*bits.shape[:3], 3))
    k[..., 1] = 1
    (y, _), _ = ops.delta_rule(k, k, XP.ones_like(bits), 2 * bits)
    same(y, 2 * (XP.cumsum(bits, axis=2) % 2))


@given(case=sizes)
def test_four_steps_a_token_permute_five_things(case):
    """I - k.T @ k with k = e_i - e_j exchanges i and j, and four exchanges make any order."""
    words = case.rng.integers(0, 5, (case.B, case.H, 4 * case.n, 2))
    k = np.eye(5)[words[..., 0]] - np.eye(5)[words[..., 1]]
    expected = np.broadcast_to(np.eye(5), (case.B, case.H, 5, 5)).copy()
    for place in np.ndindex(words.shape[:3]):
        here, (i, j) = expected[place[:2]], words[place]
        here[[i, j]] = here[[j, i]]
    k = XP.asarray(k)
    rate, start = XP.ones((*k.shape[:3], 1)), XP.broadcast_to(XP.eye(5), expected.shape).copy()
    (_, order), _ = ops.delta_rule(k, k, XP.zeros_like(k), rate, None, start)
    same(order, expected)


PLAIN = {"expand_v": 1, "decay": False, "gate": False}


@pytest.mark.parametrize(
    ("name", "options"),
    [("deltanet", PLAIN | {"beta_max": 1}), ("gated_deltanet", {"beta_max": 1})],
)
@given(case=sizes)
def test_deltaproduct_of_one_step_is_deltanet(name, options, case):
    product, params = build("deltaproduct", case, causal=True, steps=1, **options)
    single, single_params = build(name, case, causal=True)
    x = XP.asarray(case.rng.normal(size=(case.B, case.n, single.width)))
    same(product(params, x)[0], single(single_params, x)[0])


@given(case=sizes)
def test_deltaproduct_of_two_equal_steps_reads_each_token_twice(case):
    single, params = build("deltanet", case, causal=True, conv=0, beta_max=2)
    product, _ = build("deltaproduct", case, causal=True, conv=0, **PLAIN)
    x = XP.asarray(case.rng.normal(size=(case.B, case.n, single.width)))
    twice = single(params, XP.repeat(x, 2, axis=1))[0][:, 1::2]
    double = dict(params) | {
        name: {"W": XP.concatenate([params[name]["W"]] * 2)} for name in ("k", "v", "beta")
    }
    close(product(double, x)[0], twice)


@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet", "kda", "deltaproduct"])
@given(case=sizes)
def test_twice_the_beta_is_a_beta_of_two(name, case):
    """What beta_max multiplies is all of β and nothing else."""
    mixer, params = build(name, case, causal=True, beta_max=2)
    x = XP.asarray(case.rng.normal(size=(case.B, case.n, mixer.width)))
    module = importlib.import_module(f"minisum.mixers.{name}")
    betas = []

    def rule(q, k, v, beta, *others):
        betas.append(beta)
        return ops.delta_rule(q, k, v, beta, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "delta_rule", rule)
        mixer(params, x)
        build(name, case, causal=True, beta_max=0.5)[0](params, x)
    same(betas[0], 4 * betas[1])


@given(case=sizes)
def test_the_delta_rule_that_learns_nothing_keeps_its_state(case):
    q, k, v = qkv(case)
    S = case.normal("B H h d")
    (y, state), _ = ops.delta_rule(q, unit(k), v, XP.zeros(case.shape("B H n 1")), None, S)
    same(state, S)
    close(y, q @ S)


@given(case=sizes)
def test_what_the_delta_rule_just_wrote_it_reads_back(case):
    """A key of length one at rate 1: its own value, whatever was stored before."""
    _, k, v = qkv(case)
    k = unit(k)
    (y, _), _ = ops.delta_rule(k, k, v, XP.ones(case.shape("B H n 1")))
    close(y, v)


@given(case=cases(XP, B=(1, 2), n=(1, 4), H=(1, 2), d=(1, 4)))
def test_the_delta_rule_with_orthogonal_keys_is_linear_attention(case):
    """Nothing to correct: every key is new."""
    shape = (*case.shape("B H n"), 4)
    k = XP.broadcast_to(XP.eye(4)[: case.n], shape)
    q = XP.asarray(case.rng.normal(size=shape))
    v = case.normal("B H n d")
    (corrected, _), _ = ops.delta_rule(q, k, v, XP.ones((*shape[:3], 1)))
    close(corrected, ops.causal_product(q, k, v)[0][0])


@given(case=sizes)
def test_simpletron_is_trilinear(case):
    """Scaling q, k and v by powers of two scales y by their product, to the last bit."""
    for causal in (False, True):
        mixer, params = build("simpletron", case, causal=causal)
        x = XP.asarray(case.rng.normal(size=(case.B, case.n, mixer.width)))
        y, _ = mixer(params, x)
        factors = {"q": 2.0, "k": -4.0, "v": 0.5}
        scaled = {
            name: {key: factors[name] * a for key, a in layer.items()}
            for name, layer in params.items()
        }
        same(mixer(scaled, x)[0], -4.0 * y)


@pytest.mark.parametrize("name", ["simpletron", "linear_attention", "aft_simple", "cosformer"])
@given(case=sizes)
def test_the_last_token_of_the_causal_form_sees_what_the_full_form_sees(name, case):
    causal, params = build(name, case, causal=True)
    full, _ = build(name, case)
    x = XP.asarray(case.rng.normal(size=(case.B, case.n, causal.width)))
    close(causal(params, x)[0][:, -1], full(params, x)[0][:, -1])


@given(case=sizes)
def test_tssa_looks_back_with_the_memberships_of_the_time(case):
    """Its causal form is not the full form on a prefix: each token is judged by its own past."""
    w, tau = case.normal("B 2 5 h"), XP.ones(2)
    full, _ = token_statistics(w, tau)
    (causal, _), _ = running_token_statistics(w, tau, XP.zeros((case.B, 2, 5)))
    assert abs(full[:, :, -1] - causal[:, :, -1]).max() > 1e-6


@given(case=cases(XP, B=(1, 2), n=(1, 9), H=(1, 3), h=(1, 4)), masked=st.booleans())
def test_gradients_of_token_statistics(case, masked):
    mask = case.mask() if masked else None
    # Not near zero, where the shares w² / Σ w² of the first tokens are too steep to measure.
    signs = XP.asarray(case.rng.choice([-1.0, 1.0], case.shape("B H n h")))
    w = keep_real(case.uniform("B H n h", 0.3, 1.5) * signs, mask)
    tau, bias = case.uniform("H", 0.5, 2), case.normal("B H n", 0.3)

    def running(w, tau, bias):
        (o, _), back = running_token_statistics(w, tau, bias, mask)
        return o, lambda do: back(do)[:3]

    assert gradcheck(lambda w, tau: token_statistics(w, tau, mask), w, tau, seed=case.seed)
    assert gradcheck(running, w, tau, bias, seed=case.seed)


@given(case=cases(XP, B=(1, 2), n=(1, 9), H=(1, 3), h=(1, 4)))
def test_gradients_of_token_statistics_whose_sums_are_held(case):
    """Channels so faint that Σ w² is held at its least value: shares that no longer sum to one."""
    w = case.uniform("B H n h", 0.3, 1.0)
    tau, bias = case.uniform("H", 0.5, 2), case.normal("B H n", 0.3)

    def faint(w):
        o, back = token_statistics(w * 2.0**-44, tau)
        return o * 2.0**44, lambda do: back(do)[0]

    def running_faint(w):
        (o, _), back = running_token_statistics(w * 2.0**-24, tau, bias)
        return o * 2.0**24, lambda do: back(do)[0]

    assert gradcheck(faint, w, seed=case.seed)
    assert gradcheck(running_faint, w, seed=case.seed)


@given(case=sizes)
def test_tssa_with_one_head_shrinks_by_the_mean_square(case):
    w = case.normal("B 1 n h")
    o, _ = token_statistics(w, XP.ones(1))
    mean_square = (w * w).sum(axis=2, keepdims=True) / (case.n + 1e-8)
    close(o, -w / (1 + mean_square))


@given(case=sizes)
def test_summation_is_homogeneous_and_adds_up(case):
    mixer, params = build("summation", case)
    x = XP.asarray(case.rng.normal(size=(case.B, case.n, mixer.width)))
    y, _ = mixer(params, x)
    assert not mixer(params, XP.zeros_like(x))[0].any()
    same(mixer(params, 4.0 * x)[0], 4.0 * y)
    cut = int(case.rng.integers(0, case.n, endpoint=True))
    parts = [mixer(params, part)[0][:, -1] for part in (x[:, :cut], x[:, cut:]) if part.shape[1]]
    close(sum(parts), y[:, -1])


@given(case=sizes)
def test_summation_is_linear_attention_with_constant_features(case):
    for causal in (False, True):
        mixer, params = build("summation", case, causal=causal, two_layer=False)
        x = XP.asarray(case.rng.normal(size=(case.B, case.n, mixer.width)))
        one = XP.ones((case.B, 1, case.n, 1))
        product = ops.causal_product if causal else ops.full_product
        u = XP.maximum(x @ params["project"]["W"].T, 0)
        close(mixer(params, x)[0], product(one, one, u[:, None])[0][0][:, 0])


@given(case=sizes)
def test_the_running_mean_is_the_sum_over_the_count(case):
    mean, params = build("running_mean", case, causal=True, two_layer=False)
    summation, _ = build("summation", case, causal=True, two_layer=False)
    x = XP.asarray(case.rng.normal(size=(case.B, case.n, mean.width)))
    count = XP.arange(1, case.n + 1)[:, None]
    close(mean(params, x)[0] * count, summation(params, x)[0])


@given(case=sizes)
def test_the_decayed_sum_is_a_product_of_one_key(case):
    """The elementwise engine and the matrix engine, on what both can do."""
    u, log_decay = case.normal("B n d"), case.uniform("B n d", -2, 0)
    (h, last), _ = ops.decayed_sum(u, log_decay)
    as_heads = [a.swapaxes(1, 2)[..., None] for a in (u, log_decay)]
    one = XP.ones_like(as_heads[0])
    (y, S), _ = ops.causal_product(one, one, as_heads[0], as_heads[1])
    close(h, y[..., 0].swapaxes(1, 2))
    close(last, S[..., 0, 0])
    close(ops.decayed_sum(u, XP.zeros_like(u))[0][0], XP.cumsum(u, axis=1))


@given(case=sizes)
def test_a_running_softmax_of_equal_keys_is_a_running_mean(case):
    v = case.normal("B n d")
    (y, _), _ = ops.running_softmax_pool(XP.full_like(v, 3.0), v)
    close(y, XP.cumsum(v, axis=1) / XP.arange(1, case.n + 1)[:, None])


@given(case=sizes)
def test_a_running_softmax_does_not_mind_large_keys(case):
    k, v = case.normal("B n d", 3.0), case.normal("B n d")
    (y, _), _ = ops.running_softmax_pool(k, v)
    (louder, _), _ = ops.running_softmax_pool(k + 1e4, v)
    np.testing.assert_allclose(to_numpy(louder), to_numpy(y), rtol=1e-9, atol=1e-9)
    close(ops.softmax_pool(k, v)[0], y[:, -1])


@given(case=cases(XP, B=(1, 2), n=(2, 9), d=(1, 4)))
def test_a_running_softmax_follows_keys_that_grow_without_bound(case):
    """Each key outweighs all others, by more than an exponential can hold: its value comes out."""
    v = case.normal("B n d")
    steps = XP.broadcast_to(XP.arange(case.n)[:, None] * 2000.0, v.shape)
    for base in (0.0, -1e5):
        same(ops.running_softmax_pool(base + steps, v)[0][0], v)
        (first, _), _ = ops.running_softmax_pool(base - steps, v)
        same(first, XP.broadcast_to(v[:, :1], v.shape))


@given(case=sizes)
def test_linear_attention_averages(case):
    """With one and the same value everywhere, that is what comes out, less the guard's share."""
    q, k = case.uniform("B H n h", 0.5, 1), case.uniform("B H n h", 0.5, 1)
    v = XP.broadcast_to(case.normal("B H 1 d"), case.shape("B H n d"))
    for causal in (False, True):
        (y, _), _ = ops.kernel_attention(q, k, v, causal=causal, eps=1e-12)
        close(y, v)


@given(case=sizes)
def test_rotated_products_depend_on_distance_alone(case):
    q, k = case.normal("B H n 4"), case.normal("B H n 4")
    positions = XP.arange(case.n)[None]

    def scores(shift):
        (turned_q, _), (turned_k, _) = (ops.rotate(a, positions + shift) for a in (q, k))
        return turned_q @ turned_k.swapaxes(-1, -2)

    close(scores(0), scores(1000))
    turned, back = ops.rotate(q, positions)
    close((turned * turned).sum(axis=-1), (q * q).sum(axis=-1))
    close(back(turned)[0], q)


@pytest.mark.parametrize("decay", [-0.1, -3.0, -80.0])
@pytest.mark.parametrize("letters", ["1 1 2000 1", "1 1 2000 4"])
@pytest.mark.parametrize("op", [ops.causal_product, ops.delta_rule])
def test_strong_decays_do_not_overflow(op, decay, letters):
    """In float32, where exp(-b) of the factored form is infinite after 887 tokens at -0.1."""
    rng = np.random.default_rng(0)
    q, k, v, dy = (rng.normal(size=(1, 1, 2000, 4)) for _ in range(4))
    log_decay = np.full([int(s) for s in letters.split()], decay)
    inputs = [q, k, v, log_decay]
    if op is ops.delta_rule:
        inputs[1:] = [
            k / np.linalg.norm(k, axis=-1, keepdims=True),
            v,
            rng.uniform(0, 2, (1, 1, 2000, 1)),
            log_decay,
        ]
    results = []
    for dtype in (np.float64, np.float32):
        arrays = [XP.asarray(a, dtype=dtype) for a in inputs]
        (y, _), back = op(*arrays)
        results.append([y, *back((XP.asarray(dy, dtype=dtype), None))[: len(inputs)]])
    # The decay's gradient is a difference of terms q ⊙ dq, and as exact as those.
    terms = abs(q * to_numpy(results[0][1])).max()
    for place, (exact, rounded) in enumerate(zip(*results, strict=True)):
        scale = terms if place == len(inputs) else abs(exact).max()
        error = float(abs(to_numpy(rounded) - to_numpy(exact)).max())
        assert error <= 2e-6 * float(scale)
