"""Each fused GPU kernel against the textbook form. Needs MINISUM_TEST_BACKEND=cupy."""

import numpy as np
import pytest
from conftest import XP
from test_precision import to_float

from minisum import backend, ops
from minisum.fast.cuda import (
    attention,
    compiling,
    cublas,
    fused_attention,
    losses,
    norms,
    precision,
    summation,
    sums,
    triangular,
)
from minisum.fast.cuda.recording import matmul
from minisum.models import classifier
from minisum.ops.embedding import add_rows
from minisum.ops.running import cumsum, reverse_cumsum
from minisum.optim import Adam
from minisum.params import Params
from minisum.shards import Shards

pytestmark = pytest.mark.skipif(XP is np, reason="kernels run on a GPU: MINISUM_TEST_BACKEND=cupy")

# float32 sums of some hundred terms in another order, and atomic additions in any order.
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
# Odd sizes, one token, more columns than a block has, long enough for several stretches.
# Columns that four divides, and others. More texts than a thread of the way back takes.
SHAPES = [
    (1, 1, 1), (3, 7, 5), (64, 40, 65), (2, 3000, 130), (5, 70, 64), (70, 512, 256), (1, 20000, 64)
]  # fmt: skip


@pytest.fixture(params=(np.float32, np.float64), ids=("float32", "float64"))
def dtype(request):
    return request.param


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


def normal(rng, shape, dtype):
    return XP.asarray(rng.normal(size=shape).astype(dtype))


def with_and_without(monkeypatch, compute):
    """What `compute` returns with the kernels, and with the textbook forms on the same device."""
    fused = compute()
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "runs_on", lambda *arrays: False)
        plain = compute()
    return fused, plain


def assert_agree(fused, plain, dtype):
    for a, b in zip(fused, plain, strict=True):
        a, b = backend.to_numpy(a), backend.to_numpy(b)
        assert a.shape == b.shape and a.dtype == b.dtype
        size = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * size)


def test_sum_leading(shape, dtype):
    x = normal(np.random.default_rng(0), shape, dtype)
    wanted = [x.sum(axis=(0, 1)), x[:0].sum(axis=(0, 1))]
    assert_agree([sums.sum_leading(x), sums.sum_leading(x[:0])], wanted, dtype)


def ends(ids, kept, table, positions, x, dy, dtable, dpositions):
    """What the kernels of direct summation's two ends give; the last two are to be added to."""
    n = ids.shape[1]
    placed, rows = summation.embed_modulate(ids, kept, table, positions, 1.0)
    y, positive = summation.relu_sum(x, rows, ids.shape)
    dx = summation.relu_sum_back(dy, kept, positive, n)
    sums = summation.embed_modulate_back(x, ids, rows, table, positions, 1.0, dtable)
    return placed, y, dx, dtable, dpositions + sums


def wanted_ends(ids, kept, table, positions, x, dy, dtable, dpositions):
    """The same by rows, of which those that belong to no token hold zeros."""
    B, n = ids.shape
    tokens = XP.arange(B * n) if kept is None else kept
    real, tokens = (tokens >= 0)[:, None], XP.maximum(tokens, 0)
    words, texts, places = ids.reshape(-1)[tokens], tokens // n, tokens % n
    factor, y = positions[places] + 1, XP.zeros_like(dy)
    add_rows.plain(y, texts, XP.where(real & (x > 0), x, 0))
    add_rows.plain(dtable, words, XP.where(real, x * factor, 0))
    add_rows.plain(dpositions, places, XP.where(real, x * table[words], 0))
    placed, dx = table[words] * factor, dy[texts] * (x > 0)
    return XP.where(real, placed, 0), y, XP.where(real, dx, 0), dtable, dpositions


def assert_ends(shape, dtype, packed, start=0):
    rng = np.random.default_rng(0)
    B, n, d = shape

    def array(*size):
        return normal(rng, np.prod(size) + start, dtype)[start:].reshape(size)

    ids, kept = XP.asarray(rng.integers(0, 11, (B, n)).astype(np.int32)), None
    if packed:
        tokens = np.flatnonzero(rng.random(B * n) < 0.7)
        kept = XP.asarray(np.append(np.insert(tokens, len(tokens) // 2, -1), -1).astype(np.int32))
    N = B * n if kept is None else len(kept)
    arrays = ids, kept, array(11, d), array(n, d), array(N, d), array(B, d)
    results = [f(*arrays, array(11, d) * 0 + 1, array(n, d) * 0 + 1) for f in (ends, wanted_ends)]
    assert_agree(*results, dtype)


@pytest.mark.parametrize("packed", (False, True))
def test_the_ends_of_direct_summation(shape, dtype, packed):
    assert_ends(shape, dtype, packed)


def test_views_that_start_anywhere(dtype):
    """Vectorized loads need a place that four numbers divide, and these views have none."""
    assert_ends((3, 7, 8), dtype, True, start=1)


def test_more_texts_than_blocks_along_a_grids_side():
    assert_ends((70_000, 1, 1), np.float64, False)


@pytest.mark.parametrize("token_dropout", (0.0, 0.5))
def test_packed_texts_give_the_numbers_of_padded_ones(dtype, token_dropout):
    """Loss, gradient and scores; and the one kernel that adds two gradients adds each."""
    rng = np.random.default_rng(16)
    model = classifier.build(
        "summation", 50, 16, 5, 40, pooling="mean", token_dropout=token_dropout
    )
    params = Params.from_arrays(model.init(rng), XP, dtype)
    mask = np.arange(33) < rng.integers(0, 34, (30, 1))
    batch = {
        "ids": (rng.integers(1, 50, (30, 33)) * mask).astype(np.int32),
        "mask": mask,
        "targets": rng.integers(0, 5, 30).astype(np.int32),
    }
    batch |= model.noise(rng, batch)
    packed, padded = (
        backend.to_device(model.prepare(batch, XP, whole), XP) for whole in (True, False)
    )
    assert packed["mask"].ndim == 1 and packed["mask"].size < padded["mask"].size
    results = []
    for each in (packed, padded):
        grads, runner = params.zeros_like(), Shards(model, record=False)
        loss = runner.loss_and_grads(params, grads, each)
        results.append((loss, grads.vector, runner.predict(params, each)))
    assert_agree(*results, dtype)


def test_a_sum_lets_no_padding_through_and_hides_no_nan():
    x = XP.asarray(np.array([[1.0], [np.nan], [np.nan], [2.0]]))
    rows = XP.asarray(np.array([[0, -1], [2, 3]], np.int32))
    y, positive = summation.relu_sum(x, rows, (2, 2))
    assert float(y[0, 0]) == 1.0 and np.isnan(float(y[1, 0]))
    dx = summation.relu_sum_back(XP.ones((2, 1)), rows.reshape(-1), positive, 2)
    assert backend.to_numpy(dx)[:, 0].tolist() == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("classes", (2, 20, 1000))
def test_cross_entropy(monkeypatch, dtype, classes):
    rng = np.random.default_rng(2)
    logits = normal(rng, (5, 9, classes), dtype) * 5
    targets = XP.asarray(rng.integers(-1, classes, (5, 9)))
    for total in (None, 77):

        def compute(total=total):
            loss, back = ops.cross_entropy(logits, targets, total=total)
            return loss, back(1.5)[0]

        assert_agree(*with_and_without(monkeypatch, compute), dtype)


@pytest.mark.parametrize(
    "options",
    ({}, {"weight_decay": 0.1}, {"clip_value": 0.5}, {"clip_norm": 1.0},
     {"clip_value": 0.5, "clip_norm": 1.0, "weight_decay": 0.1, "eps": 1e-3}),
    ids=str,
)  # fmt: skip
def test_adam(monkeypatch, dtype, options):
    arrays = {"W": np.ones((30, 70)), "b": np.ones(11)}

    def compute():
        rng = np.random.default_rng(3)
        params = Params.from_arrays(arrays, xp=XP, dtype=dtype)
        grads, adam = params.zeros_like(), Adam(params, **options)
        for _ in range(5):
            grads.vector[...] = normal(rng, grads.vector.size, dtype)
            adam.step(grads, 0.01)
        return params.vector, adam.m.vector, adam.v.vector

    assert_agree(*with_and_without(monkeypatch, compute), dtype)


@pytest.mark.parametrize("mixer", classifier.MODELS)
def test_ten_training_steps_agree_with_numpy(mixer):
    """Losses and parameters of a model with dropout, clipping and padding, in float64."""

    def train(xp):
        rng = np.random.default_rng(4)
        model = classifier.build(mixer, 50, 16, 5, 12, dropout=0.3, token_dropout=0.2)
        params = Params.from_arrays(model.init(rng), xp=xp, dtype=np.float64)
        grads, shards = params.zeros_like(), Shards(model)
        adam = Adam(params, clip_value=0.1, clip_norm=1.0, weight_decay=0.01)
        losses = []
        for _ in range(10):
            mask = np.arange(12) < rng.integers(0, 13, (8, 1))
            batch = {
                "ids": (rng.integers(1, 50, (8, 12)) * mask).astype(np.int32),
                "mask": mask,
                "targets": rng.integers(0, 5, 8).astype(np.int32),
            }
            batch |= model.noise(rng, batch)
            losses.append(float(shards.loss_and_grads(params, grads, backend.to_device(batch, xp))))
            adam.step(grads, 0.01)
        return losses, backend.to_numpy(params.vector)

    losses, vector = train(XP)
    wanted_losses, wanted_vector = train(np)
    np.testing.assert_allclose(losses, wanted_losses, rtol=1e-10)
    np.testing.assert_allclose(vector, wanted_vector, rtol=0, atol=1e-9)


@pytest.mark.parametrize("width", (1, 5, 64, 300, 1500))
def test_layer_norm(monkeypatch, dtype, width):
    rng = np.random.default_rng(6)
    x, dy = (normal(rng, (3, 37, width), dtype) for _ in range(2))
    gain, bias = (normal(rng, width, dtype) for _ in range(2))

    def compute():
        y, back = ops.layer_norm(x, gain, bias)
        return y, *back(dy)

    if width > 1:  # of a single number nothing is left but rounding
        assert_agree(*with_and_without(monkeypatch, compute), dtype)
    assert np.isfinite(backend.to_numpy(compute()[0])).all()


def test_layer_norm_of_more_tokens_than_a_grids_sides_have_blocks():
    """A grid has no more than 65,535 blocks along its second axis."""
    rng = np.random.default_rng(14)
    x, dy = (normal(rng, (65_536 * norms.STRETCH, 1), np.float32) for _ in range(2))
    gain, bias = (normal(rng, 1, np.float32) for _ in range(2))
    assert float(ops.layer_norm(x, gain, bias)[1](dy)[2][0]) == pytest.approx(float(dy.sum()), 1e-3)


@pytest.mark.parametrize(
    "shape, axis",
    [((2, 1, 3), 1), ((3, 63, 5), 1), ((2, 700, 33), 1), ((2, 3, 200, 4), 2), ((2, 3, 129), 2)],
    ids=str,
)
def test_running_sums(monkeypatch, shape, axis, dtype):
    x = normal(np.random.default_rng(7), shape, dtype)
    compute = lambda: (cumsum(x, axis), reverse_cumsum(x, axis))  # noqa: E731
    assert_agree(*with_and_without(monkeypatch, compute), dtype)


@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("masked", (False, True))
@pytest.mark.parametrize("n, m", [(1, 1), (7, 7), (64, 132), (70, 130), (300, 300), (1, 2052)])
@pytest.mark.parametrize("heads_at_a_time", (15, 10, 5, 4, 1, "two queries"))
def test_attention(monkeypatch, dtype, causal, masked, n, m, heads_at_a_time):
    """Of three texts with five heads each: all, two texts, one, some heads of it, one."""
    rows = 2 if heads_at_a_time == "two queries" else heads_at_a_time * n
    monkeypatch.setattr(attention, "CACHED", rows * m)
    monkeypatch.setattr(attention, "LEAST_QUERIES", 1)
    rng = np.random.default_rng(8)
    q, k, v, dy = (normal(rng, (3, 5, t, 5), dtype) for t in (n, m, m, n))
    mask = XP.asarray(rng.random((3, m)) < 0.6) if masked else None

    def compute():
        y, back = ops.attention(q, k, v, mask, causal)
        return y, *back(dy)[:3]

    assert_agree(*with_and_without(monkeypatch, compute), dtype)


ROUNDING = {"tf32": 3e-3, "bf16": 3e-2}  # of an entry, in units of the largest


@pytest.mark.parametrize("chosen", ROUNDING)
@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("masked", (False, True))
@pytest.mark.parametrize("n, m", [(1, 1), (64, 64), (70, 130), (1, 2052), (513, 600)])
@pytest.mark.parametrize("h", (8, 64, 96))
def test_fused_attention(monkeypatch, chosen, causal, masked, n, m, h):
    """Against float64. Texts of which nothing is seen, and NaN where a mask is, among them."""
    monkeypatch.setattr(precision, "chosen", chosen)
    rng = np.random.default_rng(15)
    shapes = [(3, t, 5, h) for t in (n, m, m, n)]
    q, k, v, dy = (normal(rng, shape, np.float32).transpose(0, 2, 1, 3) for shape in shapes)
    assert fused_attention.takes(q, k, v)
    mask = None
    if masked:
        mask = XP.asarray((rng.random((3, m)) < 0.6) & (np.arange(3) > 0)[:, None])
        k, v = (XP.where(mask[:, None, :, None], x, XP.nan) for x in (k, v))
    y, back = ops.attention(q, k, v, mask, causal)
    arguments = (x.astype(np.float64) for x in (q, k, v))
    wanted, wanted_back = ops.attention.plain(*arguments, mask, causal)
    found = zip((y, *back(dy)[:3]), (wanted, *wanted_back(dy.astype(np.float64))[:3]), strict=True)
    for a, b in found:
        assert a.dtype == np.float32 and a.shape == b.shape
        a, b = backend.to_numpy(a), backend.to_numpy(b)
        size = max(1.0, np.abs(b).max(initial=0))
        assert np.abs(a - b).max(initial=0) <= ROUNDING[chosen] * size


@pytest.mark.parametrize("bias", (False, True))
@pytest.mark.parametrize("scores", (None, 900))
@pytest.mark.parametrize("words", (70, 72))
def test_blocked_loss(monkeypatch, dtype, bias, scores, words):
    """The large blocks, whole and cut."""
    rng = np.random.default_rng(9)
    x, W = normal(rng, (4, 60, 9), dtype), normal(rng, (words, 9), dtype)
    b = normal(rng, words, dtype) if bias else None
    targets = XP.asarray(rng.integers(-1, words, (4, 60)).astype(np.int32))
    if scores:
        monkeypatch.setattr(losses, "CACHED", scores)

    def compute():
        loss, back = ops.linear_cross_entropy(x, W, b, targets, total=77)
        gradients = back(1.0)[:3]
        return loss, *gradients[: 3 if bias else 2]

    assert_agree(*with_and_without(monkeypatch, compute), dtype)


@pytest.mark.parametrize("transposed", (False, True))
@pytest.mark.parametrize("C, width", [(1, 1), (7, 3), (64, 300)])
def test_triangular_systems(dtype, C, width, transposed):
    rng = np.random.default_rng(13)
    L = XP.tril(normal(rng, (2, 3, C, C), dtype) * 0.3, -1) + XP.eye(C, dtype=dtype)
    r = normal(rng, (2, 3, C, width), dtype)
    x = triangular.unit_triangular_solve(L, r, transposed)
    assert_agree([(L.swapaxes(-1, -2) if transposed else L) @ x], [r], dtype)


@pytest.fixture(params=("plain", "turned", "heads", "gaps", "empty"))
def factors(request, dtype):
    """Two factors of a product, laid out in memory in this way."""
    rng, layout = np.random.default_rng(10), request.param
    a, b = normal(rng, (6, 5), dtype), normal(rng, (5, 7), dtype)
    if layout == "turned":
        a, b = normal(rng, (5, 6), dtype).T, normal(rng, (7, 5), dtype).T
    if layout == "heads":
        a = normal(rng, (2, 6, 3, 5), dtype).transpose(0, 2, 1, 3)
        b = normal(rng, (2, 3, 7, 5), dtype).swapaxes(-1, -2)
    if layout == "gaps":
        a, b = normal(rng, (12, 10), dtype)[::2, ::2], XP.broadcast_to(b[:, :1], (5, 7))
    if layout == "empty":
        a, b = a[:, :0], b[:0]
    return a, b


def test_products_while_recording(dtype, factors):
    """What cuBLAS is told about an array's layout, against CuPy's own product."""
    a, b = factors
    stream = XP.cuda.get_current_stream()
    cublas.prepare(stream)
    assert_agree([cublas.product(a, b)], [a @ b], dtype)
    out = XP.empty(a.shape[:-1] + b.shape[-1:], dtype)
    assert cublas.product(a, b, out) is out
    assert_agree([out], [a @ b], dtype)


@pytest.mark.parametrize("chosen, bits", [("tf32", 10), ("bf16", 7)])
def test_products_of_rounded_factors(monkeypatch, dtype, factors, chosen, bits):
    """bf16: the product of what was rounded, to float32's rounding. float64 stays as it is."""
    monkeypatch.setattr(precision, "chosen", chosen)
    a, b = (backend.to_numpy(factor).astype(np.float64) for factor in factors)
    y, sizes = backend.to_numpy(matmul(*factors)), np.abs(a) @ np.abs(b)
    assert y.dtype == dtype
    if dtype == np.float32 and chosen == "bf16":
        a, b = (to_float(precision.plain_to_bfloat16(x.astype(np.float32))) for x in (a, b))
        bits = 22
    elif dtype == np.float64:
        bits = 50
    assert (np.abs(y - a @ b) <= 2.0 ** (1 - bits) * sizes).all()


@pytest.mark.parametrize("size", (1, 7, 1024, 5000))
def test_rounding_to_bfloat16(size):
    rng = np.random.default_rng(11)
    x = rng.integers(0, 2**32, size, dtype=np.uint32).view(np.float32)  # infinities and NaN too
    rounded = precision.to_bfloat16(XP.asarray(x))
    np.testing.assert_array_equal(backend.to_numpy(rounded), precision.plain_to_bfloat16(x))
