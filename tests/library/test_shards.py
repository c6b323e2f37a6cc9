"""However a batch is cut, it is the same batch."""

import threading
import time

import numpy as np
import pytest
from conftest import XP

from minisum import backend, shards
from minisum.models import classifier
from minisum.models.base import Model
from minisum.params import Params
from minisum.shards import Shards, ahead

B, n, V, d, C = 7, 9, 11, 6, 3
ROWS = [1, 2, 3, B, B + 5, None]
THREADS = [1, 2, 3] if XP is np else [1]


def setting(mixer="summation", dtype="float64", **options):
    rng = np.random.default_rng(1)
    model = classifier.build(mixer, V, d, C, n, heads=2, dropout=0.25, **options)
    params = Params.from_arrays(model.init(rng), XP, dtype)
    lengths = np.array([n, 1, 0, 5, 3, n, 2])
    batch = {
        "ids": rng.integers(0, V, (B, n)).astype(np.int32),
        "mask": np.arange(n) < lengths[:, None],
        "targets": rng.integers(0, C, B).astype(np.int32),
    }
    batch |= model.noise(rng, batch)
    return model, params, backend.to_device(batch, XP)


def run(model, params, batch, **cut):
    grads = params.zeros_like()
    grads.vector[...] = 99
    loss = Shards(model, **cut).loss_and_grads(params, grads, batch)
    return float(loss), backend.to_numpy(grads.vector)


@pytest.mark.parametrize("mixer", classifier.MODELS)
def test_every_cut_gives_the_same_gradient(mixer):
    model, params, batch = setting(mixer)
    grads = params.zeros_like()
    loss, back = model.loss(params, batch, B)
    back(grads)
    wanted = backend.to_numpy(grads.vector)
    for rows in ROWS:
        for threads in THREADS:
            found, vector = run(model, params, batch, rows=rows, threads=threads)
            assert found == pytest.approx(float(loss), rel=1e-12)
            np.testing.assert_allclose(vector, wanted, rtol=0, atol=1e-13)


def test_targets_are_counted_where_nobody_has():
    """Of one text alone too."""
    model, params, batch = setting()
    for rows, targets in ((slice(0, 1), 1), (slice(0, 3), 3)):
        part = {name: array[rows] for name, array in batch.items()}
        grads = params.zeros_like()
        loss, back = model.loss(params, part, targets)
        back(grads)
        found, vector = run(model, params, part)
        assert found == pytest.approx(float(loss), rel=1e-12)
        np.testing.assert_allclose(vector, backend.to_numpy(grads.vector), rtol=0, atol=1e-13)


@pytest.mark.skipif(XP is not np, reason="a GPU adds with atomics, in any order")
@pytest.mark.parametrize("rows, threads", [(1, 1), (1, 2), (2, 3), (None, 2)])
def test_the_same_cut_gives_the_same_bits(rows, threads):
    model, params, batch = setting(dtype="float32")
    runner = Shards(model, rows=rows, threads=threads)
    first, second = params.zeros_like(), params.zeros_like()
    losses = [float(runner.loss_and_grads(params, g, batch)) for g in (first, second)]
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(first.vector, second.vector)
    for _ in range(5):
        loss, vector = run(model, params, batch, rows=rows, threads=threads)
        assert loss == losses[0]
        np.testing.assert_array_equal(vector, first.vector)


@pytest.mark.parametrize("fitting, threads, expected", [(3, 1, 3), (9, 1, B), (3, 3, 3), (9, 3, 3)])
def test_a_shard_fits_the_cache_and_leaves_no_thread_without_work(
    monkeypatch, fitting, threads, expected
):
    model, _, batch = setting()
    monkeypatch.setattr(shards, "SHARD_SIZE", int((fitting + 0.5) * model.activation_size(batch)))
    assert Shards(model, threads=threads).shard_rows(batch) == expected
    monkeypatch.setattr(shards, "SHARD_SIZE", 1)
    assert Shards(model, threads=threads).shard_rows(batch) == 1
    assert Shards(model, threads=threads, rows=5).shard_rows(batch) == 5


@pytest.mark.parametrize("threads", THREADS)
def test_one_runner_takes_batches_of_all_sizes(threads):
    """Nothing of one batch is left in the next, more threads than shards included."""
    model, params, batch = setting()
    runner = Shards(model, rows=2, threads=threads)
    for size in (B, 1, 4, B):
        part = {name: a[:size] for name, a in batch.items()}
        grads = params.zeros_like()
        loss = runner.loss_and_grads(params, grads, part)
        wanted, vector = run(model, params, part, rows=None)
        assert float(loss) == pytest.approx(wanted, rel=1e-12)
        np.testing.assert_allclose(backend.to_numpy(grads.vector), vector, rtol=0, atol=1e-13)


@pytest.mark.parametrize("mixer", classifier.MODELS)
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("rows", ROWS)
def test_predictions_come_in_order(rows, threads, mixer):
    model, params, batch = setting(mixer)
    runner = Shards(model, rows=rows, threads=threads)
    logits = backend.to_numpy(runner.predict(params, batch))
    assert logits.shape == (B, C)
    for b in range(B):
        one = {name: a[b : b + 1] for name, a in batch.items()}
        alone = backend.to_numpy(model.predict(params, one))
        np.testing.assert_allclose(logits[b : b + 1], alone, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(backend.to_numpy(runner.predict(params, one)), alone, rtol=1e-12)


@pytest.mark.parametrize("mixer", classifier.MODELS)
def test_empty_texts_only(mixer):
    model, params, batch = setting(mixer)
    batch["mask"] = batch["mask"] & False
    for rows in (1, None):
        loss, vector = run(model, params, batch, rows=rows)
        assert np.isfinite(loss) and np.isfinite(vector).all() and vector.any()
        logits = Shards(model, rows=rows).predict(params, batch)
        np.testing.assert_array_equal(backend.to_numpy(logits), 0)


class Failing(Model):
    """A model that cannot stand the number 13."""

    def count_targets(self, batch):
        return len(batch["x"])

    def activation_size(self, batch):
        return 1

    def loss(self, params, batch, total):
        if (batch["x"] == 13).any():
            raise ZeroDivisionError("thirteen")
        return batch["x"].sum() / total, lambda grads: None

    def predict(self, params, batch):
        return self.loss(params, batch, 1)[0]


@pytest.mark.parametrize("threads", THREADS)
def test_an_error_in_a_shard_comes_out(threads):
    params = Params({"w": (1,)}, XP)
    runner = Shards(Failing(), rows=1, threads=threads)
    good = {"x": XP.arange(6.0)}
    bad = {"x": XP.asarray([1.0, 2.0, 3.0, 13.0, 5.0, 6.0])}
    with pytest.raises(ZeroDivisionError, match="thirteen"):
        runner.loss_and_grads(params, params.zeros_like(), bad)
    with pytest.raises(ZeroDivisionError, match="thirteen"):
        runner.predict(params, bad)
    assert float(runner.loss_and_grads(params, params.zeros_like(), good)) == 2.5


def test_batches_made_ahead():
    """In order, two in advance, with the errors of their making where they would stand."""
    made = []

    def make(item):
        made.append(item)
        return 12 / item

    items = ahead(make, iter([4, 3, 2, 1, 0, 5]))
    assert next(items) == 3
    while len(made) < 3:
        time.sleep(0.001)
    time.sleep(0.02)
    assert made == [4, 3, 2]
    assert [next(items) for _ in range(3)] == [4, 6, 12]
    with pytest.raises(ZeroDivisionError):
        next(items)
    assert list(ahead(make, [])) == [] and list(ahead(make, [6])) == [2]


def test_a_loop_that_is_left_does_not_wait_for_its_thread():
    """The garbage collector closes it, at a moment when waiting may be for ever."""
    first, over, ended = threading.Event(), threading.Event(), []

    def make(item):
        if item:
            first.set()
            ended.append(over.wait(10))
        return item

    batches = ahead(make, range(5))
    assert next(batches) == 0 and first.wait(10)
    batches.close()
    assert not ended
    over.set()
