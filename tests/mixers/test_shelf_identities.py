"""Equations that tie the mixers of the second shelf to the first, and to what their papers say."""

import numpy as np
import pytest
from conftest import XP
from hypothesis import given
from mixer_forms import close, same

from minisum import mixers, ops
from minisum.backend import to_numpy
from minisum.mixers.rwkv6 import late_product
from minisum.params import Params
from minisum.strategies import cases

pytestmark = pytest.mark.usefixtures("short_chunks")

sizes = cases(XP, B=(1, 2), n=(1, 9), H=(1, 2), h=(1, 4), d=(1, 4))


def qkv(case):
    return case.normal("B H n h"), case.normal("B H n h"), case.normal("B H n d")


def build(name, case, **options):
    """A mixer of four numbers a head, its first values, and tokens."""
    mixer = mixers.build(name, width=4 * case.H, heads=case.H, max_len=16, **options)
    params = Params.from_arrays(mixer.init(np.random.default_rng(case.seed)), XP, "float64")
    return mixer, params, XP.asarray(case.rng.normal(size=(case.B, case.n, mixer.width)))


@given(case=sizes)
def test_a_window_as_long_as_the_text_is_attention(case):
    for causal in (False, True):
        window, params, x = build("window", case, window=case.n, causal=causal)
        attention, _, _ = build("attention", case, causal=causal)
        (y, back), (wanted, back_wanted) = window(params, x), attention(params, x)
        close(y, wanted)
        dy = XP.asarray(case.rng.normal(size=x.shape))
        close(back(dy)[0], back_wanted(dy)[0])


@given(case=sizes)
def test_first_order_is_what_attention_is_for_small_logits(case):
    """Where logits are half as large, the two differ by a quarter (two tokens: an eighth)."""
    attention, params, x = build("attention", case)
    tangent, _, _ = build("first_order", case)

    def apart(t):
        at = {**params, "q": {name: t * a for name, a in params["q"].items()}}
        return abs(to_numpy(tangent(at, x)[0] - attention(at, x)[0])).max()

    assert apart(2.0**-8) <= apart(2.0**-7) / 3.5 + 1e-14


@given(case=sizes)
def test_a_window_of_one_token_is_its_value(case):
    q, k, v = qkv(case)
    for causal in (False, True):
        y, back = ops.window_attention(q, k, v, None, 1, causal)
        same(y, v)
        dq, dk, dv, _ = back(case.normal("B H n d"))
        assert not dq.any() and not dk.any() and dv.any()


@given(case=cases(XP, B=(1, 2), n=(4, 9), H=(1, 2), h=(1, 4), d=(1, 4)))
def test_a_window_forgets_what_left_it(case):
    """A token changes the outputs of the w tokens from itself on, and no others by one bit."""
    q, k, v = qkv(case)
    s, w = int(case.rng.integers(0, case.n)), 2
    before, _ = ops.window_attention(q, k, v, None, w, True)
    k, v = k.copy(), v.copy()
    k[:, :, s], v[:, :, s] = 1.0, 2.0
    after, _ = ops.window_attention(q, k, v, None, w, True)
    same(after[:, :, :s], before[:, :, :s])
    same(after[:, :, s + w :], before[:, :, s + w :])
    assert (after[:, :, s : s + w] != before[:, :, s : s + w]).any(axis=-1).all()


@given(case=sizes)
def test_blocks_attend_on_their_own(case):
    q, k, v = qkv(case)
    y, _ = ops.window_attention(q, k, v, None, 3, False)
    for start in range(0, case.n, 3):
        block = slice(start, start + 3)
        close(y[:, :, block], ops.attention(q[:, :, block], k[:, :, block], v[:, :, block])[0])


@given(case=sizes)
def test_a_linformer_that_mixes_nothing_is_attention(case):
    linformer, params, x = build("linformer", case, rank=case.n)
    for name in ("k_along", "v_along"):
        params[name]["W"][...] = 0.0
        params[name]["W"][: case.n] = XP.eye(case.n)
    attention, plain, _ = build("attention", case)
    for name in "qkv":
        plain[name]["W"][...] = params[name]["W"]
        plain[name]["b"][...] = 0.0
    plain["o"]["W"][...], plain["o"]["b"][...] = params["o"]["W"], params["o"]["b"]
    close(linformer(params, x)[0], attention(plain, x)[0])


@given(case=sizes)
def test_rala_without_regard_for_the_queries_is_linear_attention(case):
    """Keys that agree with the mean query alike: weights 1/n, and the guard n times as large."""
    mixer, params, x = build("rala", case)
    params["q"]["W"][...], params["q"]["b"][...] = 0.0, 0.0  # queries of one
    params["k"]["W"][...], params["k"]["b"][...] = 0.0, 0.5  # keys alike
    params["gate"]["W"][...], params["gate"]["b"][...] = 0.0, 1.0
    v = x @ params["v"]["W"].T + params["v"]["b"]
    sums = 4 * 1.5
    mean = v.mean(axis=1, keepdims=True) * sums / (sums + 1e-6)
    wanted = XP.broadcast_to(mean, v.shape) @ params["o"]["W"].T + params["o"]["b"]
    close(mixer(params, x)[0], wanted)


@pytest.mark.parametrize("name", ["isab", "rala", "fastformer", "latte"])
@given(case=sizes)
def test_a_set_has_no_order(name, case):
    mixer, params, x = build(name, case)
    order = case.rng.permutation(case.n)
    close(mixer(params, x[:, order])[0], mixer(params, x)[0][:, order])


@given(case=sizes)
def test_levels_that_weigh_alike_are_one_state(case):
    """All weights 1: Mamba-2's product, and the states add up to its state."""
    q, k, v = qkv(case)
    log_decay, one = case.uniform("B H n 1", -2, 0), XP.ones(case.shape("B H n 5"))
    (y, (levels, count)), _ = ops.log_linear_product(q, k, v, log_decay, one)
    (wanted, state), _ = ops.causal_product(q, k, v, log_decay)
    close(y, wanted)
    close(levels.sum(axis=2), state)
    assert count == case.n


@given(case=cases(XP, B=(1, 2), n=(1, 9), H=(1, 2), h=(1, 4), d=(1, 4)))
def test_a_level_holds_the_block_of_its_binary_digit(case):
    """Of n - 1 = 6 = 110: token 6, none, tokens 4 and 5, tokens 0 to 3."""
    q, k, v = qkv(case)
    zero, one = XP.zeros(case.shape("B H n 1")), XP.ones(case.shape("B H n 5"))
    (_, (levels, _)), _ = ops.log_linear_product(q, k, v, zero, one)
    place = case.n - 1
    blocks = [(place, place + 1)]
    for level in range(1, 5):
        start = place >> level << level
        blocks.append((start, start + (place >> (level - 1) & 1) * (1 << (level - 1))))
    for level, (start, end) in enumerate(blocks):
        close(levels[:, :, level], k[:, :, start:end].swapaxes(-1, -2) @ v[:, :, start:end])


@given(case=sizes)
def test_slots_that_fade_alike_are_a_product_with_decay(case):
    q, k, v = qkv(case)
    log_decay = case.uniform("B H n 1", -2, 0)
    (y, S), _ = ops.slot_product(q, k, v, XP.broadcast_to(log_decay, v.shape))
    (wanted, state), _ = ops.causal_product(q, k, v, log_decay)
    close(y, wanted)
    close(S, state)


@given(case=sizes)
def test_slots_are_keys_turned_round(case):
    """One key: each slot is a decayed sum of its own."""
    _, _, v = qkv(case)
    one, log_decay = XP.ones(case.shape("B H n 1")), case.uniform("B H n d", -2, 0)
    (y, _), _ = ops.slot_product(one, one, v, log_decay)
    flat = [a.reshape(-1, *a.shape[2:]) for a in (v, log_decay)]
    close(y.reshape(flat[0].shape), ops.decayed_sum(*flat)[0][0])


@given(case=sizes)
def test_a_late_product_with_a_bonus_of_one_and_no_decay_is_the_product(case):
    """What a token reads before it writes, and its own value once: all up to itself."""
    q, k, v = (case.normal("B H n h") for _ in "qkv")
    zero = XP.zeros_like(k)
    (y, last), _ = late_product(q, k, v, zero, XP.ones(case.shape("H h")), None)
    (wanted, state), _ = ops.causal_product(q, k, v)
    close(y, wanted)
    close(last, state)


@given(case=sizes)
def test_wkv_without_decay_or_bonus_is_a_running_softmax(case):
    """Which is AFT-simple's."""
    k, v, zero = case.normal("B n d", 3.0), case.normal("B n d"), XP.zeros(case.shape("d"))
    (y, _), _ = ops.wkv(k, v, zero, zero)
    close(y, ops.running_softmax_pool(k, v)[0][0])


@given(case=cases(XP, B=(1, 2), n=(2, 9), d=(1, 4)))
def test_wkv_does_not_mind_large_keys(case):
    k, v = case.normal("B n d", 3.0), case.normal("B n d")
    w, u = case.uniform("d", -9, 0), case.normal("d")
    (y, _), _ = ops.wkv(k, v, w, u)
    (louder, _), _ = ops.wkv(k + 1e4, v, w, u)
    np.testing.assert_allclose(to_numpy(louder), to_numpy(y), rtol=1e-9, atol=1e-9)


@given(case=sizes)
def test_a_bonus_without_end_leaves_the_present_alone(case):
    k, v = case.normal("B n d"), case.normal("B n d")
    w = case.uniform("d", -2, -0.1)
    (y, _), _ = ops.wkv(k, v, w, XP.full_like(w, 1e3))
    close(y, v)


@given(case=sizes)
def test_rectified_attention_of_positive_vectors_is_their_product(case):
    q, k = case.uniform("B H n h", 0, 1), case.uniform("B H n h", 0, 1)
    v = case.normal("B H n d")
    y, _ = ops.rectified_attention(q, k, v, causal=True)
    close(y * case.h**0.5, ops.causal_product(q, k, v)[0][0])
    y, _ = ops.rectified_attention(-q, k, v)
    assert not y.any()


@given(case=sizes)
def test_a_latent_of_its_own_is_a_running_softmax(case):
    """Which is AFT-simple's, with one key for all channels; several are read in shares."""
    p, k, v = (case.uniform("B H n h", 0, 1), case.normal("B H n h", 3.0), case.normal("B H n d"))
    (y, _), _ = ops.latent_average(p, k, v)
    flat = v.reshape(-1, *v.shape[2:])
    for latent in range(case.h):
        key = XP.broadcast_to(k[..., latent : latent + 1].reshape(*flat.shape[:2], 1), flat.shape)
        average = ops.running_softmax_pool(key, flat)[0][0].reshape(v.shape)
        y = y - p[..., latent : latent + 1] * average
    close(y, XP.zeros_like(y))


@given(case=sizes)
def test_exponential_gates_that_are_wide_open_are_linear_attention(case):
    """Positive keys and queries, nothing forgotten, and gates so large that no floor holds."""
    q, k = case.uniform("B H n h", 0.2, 1), case.uniform("B H n h", 0.2, 1)
    v, kept = case.normal("B H n d"), XP.zeros(case.shape("B H n 1"))
    (y, _), _ = ops.mlstm(q, k, v, kept, kept + 50)
    (wanted, _), _ = ops.kernel_attention(q, k, v, causal=True)
    close(y, wanted)


@given(case=sizes)
def test_exponential_gates_below_the_floor_are_a_product_with_decay(case):
    (q, k, v), log_forget = qkv(case), case.uniform("B H n 1", -2, 0)
    log_input = case.uniform("B H n 1", -18, -16)
    (y, _), _ = ops.mlstm(q, k, v, log_forget, log_input)
    (wanted, _), _ = ops.causal_product(q, XP.exp(log_input) * k, v, log_forget)
    close(y * 1e7, wanted * 1e7)


@given(case=sizes)
def test_exponential_gates_may_be_of_any_size(case):
    (q, k, v), log_forget = qkv(case), case.uniform("B H n 1", -2, 0)
    log_input = case.normal("B H n 1", 16.0)
    for add in (-1e4, 0, 1e4):
        (y, _), back = ops.mlstm(q, k, v, log_forget, log_input + add)
        gradients = back((case.normal("B H n d"), None))[:5]
        assert all(XP.isfinite(a).all() for a in (y, *gradients))


@given(case=sizes)
def test_latents_at_the_end_of_a_text_are_those_of_the_whole(case):
    """The last token of the causal form reads what every token of the other reads."""
    mixer, params, x = build("latte", case, latents=2 * case.H)
    causal, *_ = build("latte", case, latents=2 * case.H, causal=True)
    close(mixer(params, x)[0][:, -1], causal(params, x)[0][:, -1])


@given(case=sizes)
def test_hgrn2_is_gated_linear_attention_that_writes_what_it_forgets(case):
    mixer, params, x = build("hgrn2", case, causal=True, lower_bound=0.25)
    heads = (case.B, case.n, case.H, -1)
    q, z, v = ((x @ params[name]["W"].T).reshape(heads).swapaxes(1, 2) for name in "qfv")
    keep = 0.25 + 0.75 / (1 + XP.exp(-z))
    (o, _), _ = ops.causal_product(ops.silu(q)[0] / 2, 1 - keep, v, XP.log(keep))
    normed, _ = ops.rms_norm(ops.merge_heads(o)[0], params["norm"]["gain"], 1e-5)
    close(mixer(params, x)[0], normed @ params["o"]["W"].T)


@given(case=sizes)
def test_cottention_that_divides_by_nothing_is_a_product_of_unit_vectors(case):
    """And does not see how long queries and keys are."""
    mixer, params, x = build("cottention", case)
    params["m"][...] = -1e3
    y, _ = mixer(params, x)
    heads = (case.B, case.n, case.H, -1)
    q, k, v = ((x @ params[name]["W"].T).reshape(heads).swapaxes(1, 2) for name in "qkv")
    q, k = (a / XP.sqrt((a * a).sum(axis=-1, keepdims=True)) for a in (q, k))
    joined, _ = ops.merge_heads(ops.full_product(q, k, v)[0][0])
    close(y, joined @ params["o"]["W"].T)


@given(case=sizes)
def test_fastformer_with_level_pools_multiplies_by_means(case):
    """Logits of zero: both pools are means over the text."""
    mixer, params, x = build("fastformer", case)
    for name in ("alpha", "beta"):
        params[name]["W"][...] = 0.0
    q, k = x @ params["q"]["W"].T, x @ params["k"]["W"].T
    p = k * q.mean(axis=1, keepdims=True)
    close(mixer(params, x)[0], (p.mean(axis=1, keepdims=True) * q) @ params["o"]["W"].T + q)


@given(case=sizes)
def test_without_decay_both_directions_are_the_full_product(case):
    q, k, v = qkv(case)
    (full, _), _ = ops.full_product(q, k, v)
    for letters in ("B H n 1", "B H n h"):
        close(ops.both_ways_product(q, k, v, XP.zeros(case.shape(letters)))[0], full)


@given(case=sizes)
def test_both_directions_are_alike(case):
    """A text read backwards, with its decays, gives the outputs backwards."""
    q, k, v = qkv(case)
    log_decay = case.uniform("B H n h", -2, 0)
    y, _ = ops.both_ways_product(q, k, v, log_decay)
    turned, _ = ops.both_ways_product(*(XP.flip(a, 2) for a in (q, k, v, log_decay)))
    close(XP.flip(turned, 2), y)


@given(case=cases(XP, B=(1, 2), n=(3, 9), H=(1, 2), h=(1, 4), d=(1, 4)))
def test_the_token_that_is_read_fades_by_its_own_decay(case):
    """And the reader's does not count: from one end only the other tokens' decays matter."""
    u = case.normal("B n d")
    log_decay = case.uniform("B n d", -2, -0.1)
    y, _ = ops.both_ways_sum(u, log_decay)
    changed = log_decay.copy()
    changed[:, 0], changed[:, -1] = -5.0, -5.0
    ends, _ = ops.both_ways_sum(u, changed)
    own = u[:, 0] - u[:, 0] * XP.exp(-5.0 - log_decay[:, 0])
    faded = own * XP.exp(log_decay[:, 0] + log_decay[:, 1:-1].sum(axis=1))
    after = (ops.both_ways_sum(u[:, 1:], log_decay[:, 1:])[0])[:, -1]
    first = u[:, 0] * XP.exp(log_decay[:, :-1].sum(axis=1))
    close(y[:, -1], after + first)
    close(y[:, -1] - ends[:, -1], faded)


@given(case=sizes)
def test_sums_both_ways_are_products_both_ways_of_one_key(case):
    u, log_decay = case.normal("B n d"), case.uniform("B n d", -2, 0)
    as_heads = [a.swapaxes(1, 2)[..., None] for a in (u, log_decay)]
    one = XP.ones_like(as_heads[0])
    y, _ = ops.both_ways_product(one, one, *as_heads)
    close(ops.both_ways_sum(u, log_decay)[0], y[..., 0].swapaxes(1, 2))


@given(case=sizes)
def test_a_selective_scan_of_one_number_is_a_decayed_sum(case):
    u, delta = case.normal("B n d"), case.uniform("B n d", 0.1, 1)
    A, key, query = case.uniform("d 1", -2, -0.1), case.normal("B n 1"), case.normal("B n 1")
    (y, _), _ = ops.selective_scan(u, delta, A, key, query)
    (h, _), _ = ops.decayed_sum(delta * u * key, delta * A[:, 0])
    close(y, h * query)


@given(case=sizes)
def test_a_selective_scan_whose_channels_are_alike_is_a_product_with_decay(case):
    """Mamba-1 with one A and one step for all channels and states is Mamba-2, one head."""
    u, delta = case.normal("B n d"), case.uniform("B n 1", 0.1, 1)
    key, query, A = case.normal("B n h"), case.normal("B n h"), -0.7
    steps = XP.broadcast_to(delta, u.shape)
    (y, _), _ = ops.selective_scan(u, steps, XP.full(case.shape("d h"), A), key, query)
    heads = [a[:, None] for a in (query, key, delta * u, delta * A)]
    close(y, ops.causal_product(*heads)[0][0][:, 0])


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
@given(case=sizes)
def test_a_state_space_model_that_steps_nowhere_passes_the_present_on(name, case):
    """Steps of next to nothing write nothing: what is left is D u through the gate."""
    mixer, params, x = build(name, case, causal=True)
    layer = params["dt"]["b"] if name == "mamba" else params["dt_bias"]
    layer[...] = -80.0
    before, _ = mixer(params, x)
    params["A_log"][...] = 5.0
    close(before, mixer(params, x)[0])
    params["D"][...] = 0.0
    assert abs(mixer(params, x)[0]).max() < 1e-9
