"""A document cut into stretches is the same document, direct summation in one op the same chain."""

import tracemalloc

import numpy as np
import pytest
from conftest import XP
from hypothesis import given
from hypothesis import strategies as st

from minisum import backend
from minisum.models.classifier import SummationClassifier
from minisum.models.long_document import LongDocumentClassifier, chunks
from minisum.ops import direct_summation
from minisum.optim import Adam
from minisum.params import Params
from minisum.shards import Shards

V, d, C = 11, 6, 3


def host(x):
    return backend.to_numpy(x)


def documents(B, n, seed=0, lengths=None):
    rng = np.random.default_rng(seed)
    batch = {
        "ids": rng.integers(0, V, (B, n)).astype(np.int32),
        "mask": rng.random((B, n)) < 0.8,
        "targets": rng.integers(0, C, B).astype(np.int32),
    }
    if lengths is not None:
        batch["mask"] &= np.arange(n) < np.array(lengths)[:, None]
    return backend.to_device(batch, XP)


def gradient(model, params, batch):
    grads = params.zeros_like()
    grads.vector[...] = 1  # `back` adds
    loss, back = model.loss(params, batch, len(batch["targets"]))
    back(grads)
    return float(loss), host(grads.vector) - 1


def parameters(model, dtype="float64"):
    return Params.from_arrays(model.init(np.random.default_rng(1)), XP, dtype)


# The op


@pytest.mark.parametrize("power", (0.0, 0.5, 1.0))
@pytest.mark.parametrize("masked", (False, True))
@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_in_place_is_the_chain_bit_for_bit(dtype, masked, power):
    rng = np.random.default_rng(0)
    B, n, o = 3, 40, 5
    ids = XP.asarray(rng.integers(0, V, (B, n)).astype(np.int32))
    table, positions, W, dy = (
        XP.asarray(rng.normal(size=shape).astype(dtype))
        for shape in ((V, d), (n, d), (o, d), (B, o))
    )
    mask = XP.asarray(np.arange(n) < np.array([[n], [7], [0]])) if masked else None
    found, wanted = [], []
    for form, results in ((direct_summation, found), (direct_summation.plain, wanted)):
        y, back = form(ids, table, positions, 1.0, W, mask, power)
        for _ in range(2):
            _, dtable, *gradients, _ = back(dy)
            results += [y, dtable.dense(), *gradients]
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype == dtype
        if XP is np:
            np.testing.assert_array_equal(a, b)


def test_read_only_and_odd_layouts():
    rng = np.random.default_rng(0)
    table, positions, W = (rng.normal(size=shape) for shape in ((V, d), (9, d), (d, d)))
    ids, mask = rng.integers(0, V, (9, 4)), rng.random((9, 4)) < 0.7
    wanted, back_wanted = direct_summation.plain(*(
        XP.asarray(a) for a in (ids.T.copy(), table, positions)), 1.0, XP.asarray(W),
        XP.asarray(mask.T.copy()))  # fmt: skip
    arrays = [XP.asarray(np.asfortranarray(a)) for a in (ids.T, table, positions, W, mask.T)]
    if XP is np:
        for a in arrays:
            a.flags.writeable = False
    y, back = direct_summation(*arrays[:3], 1.0, *arrays[3:])
    np.testing.assert_allclose(host(y), host(wanted), rtol=0 if XP is np else 1e-14)
    dy = XP.asarray(rng.normal(size=(4, d)))
    (_, dtable, *found, _), (_, wanted_dtable, *wanted, _) = back(dy), back_wanted(dy)
    pairs = zip([dtable.dense(), *found], [wanted_dtable.dense(), *wanted], strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(host(a), host(b), rtol=1e-13, atol=1e-13)


# The cut


@given(st.integers(0, 60), st.integers(1, 25), st.integers(1, 25))
def test_chunks_cover_the_document_and_keep_places(n, period, size):
    at = 0
    for start, stop, columns in chunks(n, period, size):
        assert start == at < stop and stop - start <= size
        assert (stop - start) % columns == 0
        places = start % period + np.arange(columns)
        wanted = np.arange(start, stop) % period
        np.testing.assert_array_equal(np.tile(places, (stop - start) // columns), wanted)
        at = stop
    assert at == n


# The model


def test_contributions_add_up_to_the_features():
    model = LongDocumentClassifier(V, d, C, 8, chunk=4)
    params, batch = parameters(model), documents(2, 30)
    batch["mask"] = None
    features, _ = model.features(params, batch["ids"], None)
    added = model.contributions(params, batch["ids"]).sum(axis=1)
    np.testing.assert_allclose(host(added), host(features), rtol=1e-12)


@pytest.mark.parametrize("chunk", (1, 3, 7, 100, None))
@pytest.mark.parametrize("threads", (1, 2, 3) if XP is np else (1,))
@pytest.mark.parametrize("pooling", ("sum", "sqrt", "mean"))
def test_up_to_max_len_it_is_the_classifier(pooling, threads, chunk):
    n = 20
    plain = SummationClassifier(V, d, C, n, pooling=pooling)
    cut = LongDocumentClassifier(V, d, C, n, pooling=pooling, threads=threads, chunk=chunk)
    params = parameters(plain)
    batch = documents(3, n, lengths=[n, 8, 0])
    loss, wanted = gradient(plain, params, batch)
    found, vector = gradient(cut, params, batch)
    assert found == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(vector, wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        host(cut.predict(params, batch)), host(plain.predict(params, batch)), atol=1e-12
    )


@given(st.integers(1, 50), st.integers(1, 9), st.integers(1, 30), st.integers(0, 99))
def test_beyond_max_len_positions_repeat(n, period, chunk, seed):
    """Against the plain classifier with the position table written out n rows long."""
    cut = LongDocumentClassifier(V, d, C, period, pooling="sqrt", chunk=chunk)
    plain = SummationClassifier(V, d, C, n, pooling="sqrt")
    params = parameters(cut)
    where = np.arange(n) % period
    arrays = {name: host(a) for name, a in params.flat.items()}
    written_out = Params.from_arrays(
        arrays | {"positions": arrays["positions"][where]}, XP, "float64"
    )
    batch = documents(2, n, seed)
    grads, wanted = params.zeros_like(), written_out.zeros_like()
    losses = []
    for model, p, g in ((cut, params, grads), (plain, written_out, wanted)):
        loss, back = model.loss(p, batch, 2)
        back(g)
        losses.append(float(loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    for name in arrays:
        a, b = host(grads.flat[name]), host(wanted.flat[name])
        if name == "positions":
            b, rows = np.zeros_like(a), b
            np.add.at(b, where, rows)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.skipif(XP is not np, reason="a GPU adds with atomics, in any order")
@pytest.mark.parametrize("threads", (1, 2))
def test_the_same_cut_gives_the_same_bits(threads):
    model = LongDocumentClassifier(V, d, C, 16, threads=threads, chunk=8)
    params, batch = parameters(model, "float32"), documents(2, 100)
    first = gradient(model, params, batch)
    for _ in range(5):
        again = gradient(model, params, batch)
        assert again[0] == first[0]
        np.testing.assert_array_equal(again[1], first[1])


def test_noise_of_training_is_heeded():
    model = LongDocumentClassifier(V, d, C, 8, dropout=0.5, token_dropout=0.5, chunk=4)
    params, batch = parameters(model), documents(2, 30)
    clean = gradient(model, params, batch)
    noise = model.noise(np.random.default_rng(0), {name: host(a) for name, a in batch.items()})
    noisy = gradient(model, params, batch | backend.to_device(noise, XP))
    assert noisy[0] != clean[0] and not np.array_equal(noisy[1], clean[1])


@pytest.mark.skipif(XP is not np, reason="tracemalloc sees the host's memory")
def test_memory_does_not_grow_with_the_document():
    """A whole step, Adam included, beyond the ids and the mask themselves."""
    width, peaks = 32, {}
    model = LongDocumentClassifier(50, width, C, 256, pooling="mean", threads=2, chunk=256)
    params = Params.from_arrays(model.init(np.random.default_rng(0)))
    grads, runner = params.zeros_like(), Shards(model)
    adam = Adam(params, workers=model.workers)
    for n in (1024, 65536):
        batch = {
            "ids": np.random.default_rng(0).integers(0, 50, (1, n)).astype(np.int32),
            "mask": np.ones((1, n), bool),
            "targets": np.zeros(1, np.int32),
        }
        tracemalloc.start()
        runner.loss_and_grads(params, grads, batch)
        adam.step(grads, 1e-3)
        peaks[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # The list of stretches and how the two threads fall together make a few hundred kilobytes; one
    # array of activations would make 128 bytes a token.
    assert peaks[65536] - peaks[1024] < 16 * 65536
