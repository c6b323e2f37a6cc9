"""What a backward pass keeps is what the docstring's `Saved:` line says, byte for byte."""

import numpy as np
import pytest
from conftest import XP

from minisum import mixers, ops
from minisum.fast import FORMS
from minisum.params import Params
from minisum.saved import saved_arrays

if XP is not np:
    pytest.skip("reads the memory that NumPy's arrays own", allow_module_level=True)

B, n, m, d, o, V, H, h, e = 2, 64, 64, 6, 5, 7, 3, 4, 2
REAL, ID, BOOL = 4, 8, 1


def real(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 1, shape).astype(np.float32)


def ids(below, *shape):
    return np.random.default_rng(0).integers(0, below, shape)


def mask():
    return np.arange(n) < np.array([[3], [n]])


QKV = (real(B, H, n, h), real(B, H, m, h, seed=1), real(B, H, m, e, seed=2))
QKV_BYTES = REAL * B * H * (n * h + m * h + m * e)
X = REAL * B * n * d

# op and its arguments; what `Saved:` says; that in bytes
SAVED = {
    "linear": (
        lambda: ops.linear(real(B, n, d), real(o, d), real(o)), "x, W", X + REAL * o * d),
    "embed": (
        lambda: ops.embed(ids(V, B, n), real(V, d)), "ids, and the table's shape",
        ID * B * n),
    "modulate": (
        lambda: ops.modulate(real(B, n, d), real(n, d), 1.0), "x, positions", X + REAL * n * d),
    "add_positions": (
        lambda: ops.add_positions(real(B, n, d), real(n, d)), "nothing", 0),
    "relu": (
        lambda: ops.relu(real(B, n, d)), "which entries were positive (one byte each)",
        BOOL * B * n * d),
    "gelu": (lambda: ops.gelu(real(B, n, d)), "x, Φ(x)", 2 * X),
    "sigmoid": (lambda: ops.sigmoid(real(B, n, d)), "y", X),
    "silu": (lambda: ops.silu(real(B, n, d)), "x", X),
    "softplus": (lambda: ops.softplus(real(B, n, d)), "x", X),
    "layer_norm": (
        lambda: ops.layer_norm(real(B, n, d), real(d), real(d)),
        "x, gain, mean and r (one number each per token); x̂ is computed again from them",
        X + REAL * d + REAL * 2 * B * n),
    "rms_norm": (
        lambda: ops.rms_norm(real(B, n, d), real(d)), "x, gain, r (one number per token)",
        X + REAL * d + REAL * B * n),
    "sum_tokens": (
        lambda: ops.sum_tokens(real(B, n, d), mask()), "mask, and the shape of x", BOOL * B * n),
    "mean_tokens": (
        lambda: ops.mean_tokens(real(B, n, d), mask()), "mask, c^power, and the shape of x",
        BOOL * B * n + REAL * B),
    "cumsum_tokens": (
        lambda: ops.cumsum_tokens(real(B, n, d), mask()), "mask", BOOL * B * n),
    "running_sum": (lambda: ops.running_sum(real(B, n, d)), "nothing", 0),
    "decayed_sum": (
        lambda: ops.decayed_sum.plain(real(B, n, d), -real(B, n, d), real(B, d)),
        "a, h, state, and the shape of log_decay", 2 * X + REAL * B * d),
    "softmax_pool": (
        lambda: ops.softmax_pool(real(B, n, d), real(B, n, d), mask()), "v, p, y",
        2 * X + REAL * B * d),
    "running_softmax_pool": (
        lambda: ops.running_softmax_pool.plain(real(B, n, d), real(B, n, d), mask()),
        "v, y, Z, w, a", 5 * X),
    "dropout": (
        lambda: ops.dropout(real(B, n, d), np.ones((B, 1, d), bool), 0.5), "keep", BOOL * B * d),
    "split_heads": (lambda: ops.split_heads(real(B, n, d), H), "nothing", 0),
    "merge_heads": (lambda: ops.merge_heads(real(B, H, n, h)), "the number of heads", 0),
    "attention": (
        lambda: ops.attention(*QKV, mask()), "q, k, v, p (n·m numbers a head)",
        QKV_BYTES + REAL * B * H * n * m),
    "attention_with_dropout": (
        lambda: ops.attention_with_dropout(*QKV, np.ones((B, H, n, m), bool), mask(), 0.5),
        "q, k, v, p, r, keep", QKV_BYTES + (2 * REAL + BOOL) * B * H * n * m),
    "cross_entropy": (
        lambda: ops.cross_entropy(real(B, n, V), ids(V, B, n)),
        "p, the targets, and which of them count", REAL * B * n * V + (ID + BOOL) * B * n),
    "linear_cross_entropy": (
        lambda: ops.linear_cross_entropy.plain(
            real(B, n, d), real(V, d), real(V), ids(V, B, n)),
        "x, W, the softmax of all scores, the targets, and which of them count",
        X + REAL * (V * d + B * n * V) + (ID + BOOL) * B * n),
    "binary_cross_entropy": (
        lambda: ops.binary_cross_entropy(real(B, n), real(B, n)), "logits, targets",
        REAL * 2 * B * n),
    "mean_squared_error": (
        lambda: ops.mean_squared_error(real(B, n), real(B, n, seed=1)), "y - targets",
        REAL * B * n),
}  # fmt: skip


def saved_line(op):
    """The text after `Saved:`, without its line breaks and its full stop."""
    return " ".join(op.__doc__.partition("Saved:")[2].split()).removesuffix(".")


def test_every_op_of_these_files_is_here():
    files = {getattr(ops, name).__module__ for name in SAVED}
    assert set(SAVED) == {name for name in ops.__all__ if getattr(ops, name).__module__ in files}


@pytest.mark.parametrize("name", SAVED)
def test_kept_bytes_are_those_of_the_docstring(name):
    run, words, expected = SAVED[name]
    assert saved_line(getattr(ops, name)) == words
    _, back = run()
    kept = {a.shape: a.nbytes for a in saved_arrays(back) if a.ndim}
    assert sum(a.nbytes for a in saved_arrays(back) if a.ndim) == expected, kept


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_line_is_the_docstrings_last(name):
    op = getattr(ops, name)
    assert op.__doc__.count("Saved:") == 1
    assert "\n\n" not in op.__doc__.partition("Saved:")[2].rstrip()


SEQUENCE = real(B, n, d)
HEADS = (*QKV, real(B, H, n, 1), -real(B, H, n, 1))
DIRECT = (ids(V, B, n), real(V, d), real(n, d), 1.0, real(o, d), mask())
SCAN = (SEQUENCE, real(B, n, d, seed=1), -real(d, h), real(B, n, h), real(B, n, h, seed=1))
WKV = (SEQUENCE, real(B, n, d, seed=1), -real(d), real(d))
LEVELS = real(B, H, n, 7)
STATE = REAL * B * H * h * e
# The same of forms that save something else than one another; None is the textbook form.
FORMS_SAVED = {
    ("attention", "host_attention"): (
        (*QKV, mask(), True), "q / √h, k, v, mask, and p below LEAST_KEYS keys",
        QKV_BYTES + BOOL * B * m),
    ("window_attention", None): (
        (*QKV, mask(), 8, True), "q, k, v, p (n·m numbers a head)",
        QKV_BYTES + REAL * B * H * n * m),
    ("window_attention", "blocked_window"): (
        (*QKV, mask(), 8, True),
        "q and k, v with w keys before them, in blocks; p (2 w numbers a query and head, or w)",
        REAL * B * H * n * (h + 2 * (h + e) + 2 * 8)),
    ("direct_summation", None): (
        DIRECT, "ids, positions, W, x, x ⊙ f, where z is positive, mask, c^power",
        ID * B * n + REAL * (n * d + o * d + B) + 2 * X + BOOL * B * n * (o + 1)),
    ("direct_summation", "host_summation"): (
        DIRECT,
        "word, text and place of each real token, table, positions + offset, W, x ⊙ f, where z is "
        "positive, c^power",
        REAL * (V * d + n * d + o * d + B) + DIRECT[5].sum() * (ID + 16 + REAL * d + BOOL * o)),
    ("linear_cross_entropy", "blocked_losses"): (
        (real(B, n, d), real(V, d), real(V), ids(V, B, n)), "dx, dW, db for dloss = 1",
        X + REAL * (V * d + V)),
    ("decayed_sum", None): (
        (SEQUENCE, -SEQUENCE, real(B, d)), "a, h, state, and the shape of log_decay",
        2 * X + REAL * B * d),
    ("decayed_sum", "scans"): (
        (SEQUENCE, -SEQUENCE, real(B, d)),
        "a, h up to the end of the last chunk, state, and the shape of log_decay",
        X + REAL * B * 72 * d + REAL * B * d),
    ("running_softmax_pool", None): ((SEQUENCE, SEQUENCE), "v, y, Z, w, a", 4 * X + X),
    ("running_softmax_pool", "scans"): (
        (SEQUENCE, SEQUENCE), "v, y, Z, e^{k - M}, and what the decayed sum saves",
        4 * X + REAL * B * 2 * d * (n + 72 + 1)),
    ("slot_product", None): (
        (*QKV, -QKV[2]), "q, k, v, log_decay, the state after every token",
        QKV_BYTES + REAL * B * H * n * e + (n + 1) * STATE),
    ("slot_product", "chunked_slots"): (
        (*QKV, -QKV[2]), "q, k, v, log_decay, y, one state a chunk",
        QKV_BYTES + REAL * B * H * n * 2 * e + (n // 16 + 1) * STATE),
    ("log_linear_product", None): (
        (*QKV, -real(B, H, n, 1), LEVELS),
        "q, k, v, log_decay, weights, the states after every token",
        QKV_BYTES + REAL * B * H * n * 8 + n * 7 * STATE),
    ("log_linear_product", "log_linear_chunks"): (
        (*QKV, -real(B, H, n, 1), LEVELS),
        "q, k, v, log_decay, weights, the levels of the pairs of a chunk",
        QKV_BYTES + REAL * B * H * n * 8 + ID * 64 * 64),
    ("rectified_attention", None): (
        QKV, "q, k, v, a (n·m numbers a head)", QKV_BYTES + REAL * B * H * n * m),
    ("rectified_attention", "blocked_rectified"): (QKV, "q, k, v", QKV_BYTES),
    ("mlstm", None): (
        HEADS, "q, k, v, log_forget, log_input, y, S and m of every token",
        REAL * B * H * (n * (2 * h + 3 * e + 3) + (n + 1) * (h * (e + 1) + 1))),
    ("mlstm", "exponential_gates"): (
        HEADS, "y, i', what the maximum and the floor chose, D, and what the product saves",
        REAL * B * H * (n * (2 * h + 2 * e + 5) + 2 * h * (e + 1)) + BOOL * B * H * n),
    ("latent_average", None): (
        QKV, "p, k, v, M, Z, S of every token",
        QKV_BYTES + (n + 1) * (REAL * B * H * 2 * h + STATE) - REAL * B * H * h),
    ("latent_average", "latent_scan"): (
        QKV, "p / Z, Z, w, and what the decayed sum and the product save",
        REAL * B * H * (n * (5 * h + e) + (72 + 1) * h) + (n // 16 + 1) * STATE),
    ("wkv", None): (
        WKV, "k, v, w, u, y, M, N, Z of every token", 6 * X + REAL * (2 * d + 2 * B * d)),
    ("wkv", "wkv_scan"): (
        WKV, "v, y, of every token 1 / z, past, now and e, and what the decayed sum saves",
        6 * X + REAL * 2 * d * B * (n + 72 + 1)),
    ("selective_scan", None): (
        SCAN, "u, delta, A, B, C, h after every token",
        2 * X + REAL * (d * h + 2 * B * n * h + (n + 1) * B * d * h)),
    ("selective_scan", "pieces_of_scan"): (
        SCAN, "u, delta, A, B, C, the state before every piece",
        2 * X + REAL * (d * h + 2 * B * n * h + B * d * h)),
    ("causal_product", None): (
        (*QKV, HEADS[4]), "q, k, v, log_decay, the state after every token",
        QKV_BYTES + REAL * B * H * n + (n + 1) * STATE),
    ("causal_product", "chunked_product"): (
        (*QKV, HEADS[4]), "q, k, v, log_decay, one state a chunk. A is made again",
        QKV_BYTES + REAL * B * H * n + 2 * STATE),
    ("delta_rule", None): (
        HEADS, "q, k, v, beta, log_decay, removal, S̃ of every token",
        QKV_BYTES + REAL * B * H * 2 * n + n * STATE),
    ("delta_rule", "chunked_delta_rule"): (
        HEADS,
        "q, k, v, beta, log_decay, removal; of each chunk X, Z, u, the decays in it, L, A, "
        "⟨removal|k⟩, q, k and removal times decays, and one state",
        QKV_BYTES + REAL * B * H * (n * (2 + 2 * e + 4 * h + 4 * 32 + 3) + 2) + 3 * STATE
        + BOOL * 32 * 32),
}  # fmt: skip


def form_of(name, module):
    op = getattr(ops, name)
    return op.forms()[FORMS[name][0].index(module)] if module else op.plain


def test_every_form_that_saves_something_else_is_here():
    found = {
        (name, module)
        for name in FORMS if name in ops.__all__
        for module in FORMS[name][0]
        if "Saved:" in (form_of(name, module).__doc__ or "")
    }  # fmt: skip
    assert found == {(name, module) for name, module in FORMS_SAVED if module}


@pytest.mark.parametrize("name, module", FORMS_SAVED)
def test_kept_bytes_are_those_of_the_forms_docstring(name, module, monkeypatch):
    monkeypatch.setattr("minisum.fast.host_attention.LEAST_KEYS", 0)
    arguments, words, expected = FORMS_SAVED[name, module]
    form = form_of(name, module)
    assert saved_line(form) == words
    kept = [(a.shape, a.nbytes) for a in saved_arrays(form(*arguments)[1]) if a.ndim]
    assert sum(size for _, size in kept) == expected, kept


@pytest.mark.parametrize("length", [64, 256])
def test_attention_in_blocks_keeps_nothing_quadratic(length, monkeypatch):
    monkeypatch.setattr("minisum.fast.host_attention.CACHED", 16 * length)
    q = real(1, 1, length, h)
    for least, quadratic in [(0, False), (length + 1, True)]:
        monkeypatch.setattr("minisum.fast.host_attention.LEAST_KEYS", least)
        _, back = ops.attention(q, q, q, None, True)
        assert (sum(a.size for a in saved_arrays(back)) > length**2 / 2) == quadratic


def test_attention_of_long_texts_is_linear_in_memory():
    """As it comes, from 2,048 keys on."""
    q = real(1, 1, 2048, h)
    y, back = ops.attention(q, q, q)
    assert all(a.size <= q.size for a in saved_arrays(back))


def test_what_is_counted():
    """The counting itself: nested functions, containers, views, and shared arrays only once."""
    x, y, z = np.zeros(4), np.zeros((3, 3)), np.zeros(5)

    def inner():
        return x, y.T

    table = {"z": [z[1:], z[:2]]}
    found = saved_arrays(lambda: (inner, table, x))
    assert sorted(a.nbytes for a in found) == [32, 40, 72]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", sorted(set(mixers.TABLE) - {"attention"}))
def test_what_a_mixer_keeps_is_linear_in_the_text(name, causal):
    """256 more tokens keep the same number of bytes more, whatever stands before them."""
    if name not in mixers.names(causal):
        pytest.skip("has no such form")
    mixer = mixers.build(name, width=16, heads=2, max_len=1024, causal=causal)
    params = Params.from_arrays(mixer.init(np.random.default_rng(0)))
    kept = [
        sum(a.nbytes for a in saved_arrays(mixer(params, real(1, length, 16))[1]))
        for length in (512, 768, 1024)
    ]
    # Scans end with their last chunk, of up to √n tokens.
    assert kept[2] - kept[1] == pytest.approx(kept[1] - kept[0], rel=0.12)
