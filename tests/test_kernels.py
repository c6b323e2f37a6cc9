"""Each fused GPU kernel against the plain form that it equals. Needs MINISUM_TEST_BACKEND=cupy."""

import numpy as np
import pytest
from conftest import XP

from minisum import backend, kernels, ops
from minisum.models import classifier
from minisum.optim import Adam
from minisum.params import Params
from minisum.shards import Shards

pytestmark = pytest.mark.skipif(XP is np, reason="kernels run on a GPU: MINISUM_TEST_BACKEND=cupy")

# float32 sums of some hundred terms in another order, and atomic additions in any order.
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
# Odd sizes, one token, more columns than a block has, long enough for several stretches.
SHAPES = [(1, 1, 1), (3, 7, 5), (64, 40, 65), (2, 3000, 130), (1, 20000, 64)]


@pytest.fixture(params=(np.float32, np.float64), ids=("float32", "float64"))
def dtype(request):
    return request.param


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


def normal(rng, shape, dtype):
    return XP.asarray(rng.normal(size=shape).astype(dtype))


def with_and_without(monkeypatch, compute):
    """What `compute` returns with the kernels, and with the plain forms on the same device."""
    fused = compute()
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "runs_on", lambda *arrays: False)
        plain = compute()
    return fused, plain


def assert_agree(fused, plain, dtype):
    for a, b in zip(fused, plain, strict=True):
        a, b = backend.to_numpy(a), backend.to_numpy(b)
        assert a.shape == b.shape and a.dtype == b.dtype
        size = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * size)


def test_embed_modulate(monkeypatch, shape, dtype):
    rng = np.random.default_rng(0)
    B, n, d = shape
    ids = XP.asarray(rng.integers(0, 11, (B, n)).astype(np.int32))
    table, positions = normal(rng, (11, d), dtype), normal(rng, (n, d), dtype)
    dy = normal(rng, shape, dtype)

    def compute():
        y, back = ops.embed_modulate(ids, table, positions, 1.0)
        _, dtable, dpositions = back(dy)
        held = XP.ones_like(table)
        back(dy, add_to=held)
        return y, dtable, dpositions, held

    assert_agree(*with_and_without(monkeypatch, compute), dtype)


@pytest.mark.parametrize("masked", (False, True))
@pytest.mark.parametrize("power", (0.0, 0.5, 1.0))
def test_relu_pool(monkeypatch, shape, dtype, masked, power):
    rng = np.random.default_rng(1)
    B, n, d = shape
    x, dy = normal(rng, shape, dtype), normal(rng, (B, d), dtype)
    mask = XP.asarray(rng.random((B, n)) < 0.7) if masked else None

    def compute():
        y, back = ops.relu_pool(x, mask, power)
        return y, back(dy)[0]

    assert_agree(*with_and_without(monkeypatch, compute), dtype)


def test_relu_pool_lets_no_padding_through_and_hides_no_nan():
    x = XP.asarray(np.array([[[1.0], [np.nan]], [[np.nan], [2.0]]]))
    y, back = ops.relu_pool(x, XP.asarray(np.array([[True, False], [True, True]])))
    assert float(y[0, 0]) == 1.0 and np.isnan(float(y[1, 0]))
    dx, _ = back(XP.ones((2, 1)))
    assert backend.to_numpy(dx)[:, :, 0].tolist() == [[1.0, 0.0], [0.0, 1.0]]


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
