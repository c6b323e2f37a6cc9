"""The encoder and the models on it: gradients, and what padding and order must not change."""

import sys

import fake_cupy
import numpy as np
import pytest
from conftest import XP
from text_models import assert_backward_adds, assert_writes_to_nothing

from minisum import backend, checkpoint, mixers
from minisum.errors import UserError
from minisum.gradcheck import gradcheck
from minisum.models.bert import BertClassifier
from minisum.models.encoder import (
    Encoder,
    EncoderClassifier,
    EncoderReader,
    EncoderRegressor,
)
from minisum.params import Params, flatten
from minisum.shards import Shards

V, D, C, N = 7, 4, 3, 9
ALL = list(mixers.TABLE)
# One of each engine for the slower checks: sums, softmax, statistics, kernels, delta rule, nothing.
SOME = ["summation", "attention", "tssa", "cosformer", "gated_deltanet", "projection"]
BOTH_WAYS = [name for name in SOME if mixers.TABLE[name].can_be_bidirectional]


def host(x):
    return backend.to_numpy(x)


def classifier(mixer, encoder=None, **options):
    sizes = {"layers": 2, "heads": 2, "d_ff": 5} | (encoder or {})
    return EncoderClassifier(mixer, V, D, C, N, encoder=sizes, **options)


def parameters(model, seed=0, dtype="float64"):
    """First values, a random step away: no gain of one and no bias of zero to hide behind."""
    rng = np.random.default_rng(seed)
    drawn = flatten(model.init(rng))
    arrays = {name: a + rng.normal(0, 0.2, a.shape) for name, a in drawn.items()}
    for name in arrays:
        if name.endswith((".q.b", ".k.b")):
            arrays[name] += 1  # else most of cosFormer's features are zero, and its denominators
    return Params.from_arrays(arrays, XP, dtype)


def make_batch(lengths, n, seed=0, left=False):
    rng = np.random.default_rng(seed)
    mask = np.arange(n) < np.array(lengths)[:, None]
    return {
        "ids": rng.integers(0, V, mask.shape).astype(np.int32),
        "mask": mask[:, ::-1].copy() if left else mask,
        "targets": rng.integers(0, C, len(lengths)).astype(np.int32),
    }


def loss_near(model, params, batch):
    """The loss at params + z / 10 as a function of z, in the protocol of the ops, for gradcheck.

    Through several norms and layers it bends so much that differences need the smaller steps.
    """

    def loss(z):
        at = params.zeros_like()
        at.vector[...] = params.vector + z / 10
        value, back = model.loss(at, batch, model.count_targets(batch))

        def backward(dloss):
            grads = params.zeros_like()
            back(grads)
            return grads.vector * (dloss / 10)

        return value, backward

    return loss


def require_gradient(model, batch, seed, unused=()):
    """Along a random direction of the flat vector and some of its entries; no array left out."""
    batch = backend.to_device(batch, XP)
    silent = None
    for attempt in range(4):  # at some parameters a ReLU lets nothing through
        params = parameters(model, [seed, attempt])
        grads = params.zeros_like()
        model.loss(params, batch, 3)[1](grads)
        zero = {name for name, gradient in grads.flat.items() if not host(gradient).any()}
        silent = zero if silent is None else silent & zero
    assert silent <= set(unused), silent
    params = parameters(model, seed)
    loss = loss_near(model, params, batch)
    verdict = gradcheck(loss, params.zeros_like().vector, entries=12, seed=seed)
    assert verdict, verdict


@pytest.mark.parametrize("mixer", ALL)
def test_gradient_of_the_whole_classifier(mixer):
    """With padding, an empty text, and features and tokens forgotten by noise from the host."""
    model = classifier(mixer, dropout=0.3, token_dropout=0.2)
    batch = make_batch([5, 2, 0], 5, seed=3)
    batch |= model.noise(np.random.default_rng(7), batch)
    assert batch["mask"].tolist()[0] == [True, False, True, True, False]
    # A key's bias shifts all scores of a query alike, which a softmax does not see.
    unused = {f"blocks.{i}.mixer.k.b" for i in range(2)} if mixer == "attention" else ()
    require_gradient(model, batch, seed=2, unused=unused)


@pytest.mark.parametrize("d_ff", [0, 5])
@pytest.mark.parametrize("positions", ["add", "none"])
@pytest.mark.parametrize("masked", [True, False])
def test_gradient_of_every_option(d_ff, positions, masked):
    model = classifier("tssa", {"d_ff": d_ff, "positions": positions}, masked=masked)
    require_gradient(model, make_batch([4, 2, 1], 4, seed=1), seed=4)


BERT = {"layers": 2, "heads": 2, "d_ff": 5}


@pytest.mark.parametrize("mixer", ["attention", "summation", "tssa"])
def test_gradient_of_the_whole_bert_classifier(mixer):
    """The vector of the second token type is never read."""
    unused = {f"blocks.{i}.mixer.k.b" for i in range(2)} if mixer == "attention" else ()
    model = BertClassifier(mixer, V, D, C, N, BERT)
    require_gradient(model, make_batch([5, 2, 0], 5, seed=3), 2, unused)
    model = BertClassifier(mixer, V, D, C, N, BERT, pooling="first")
    require_gradient(model, make_batch([5, 2, 1], 5, seed=3), 2, unused)


@pytest.mark.parametrize("mixer", SOME)
def test_gradient_of_the_reader(mixer):
    model = EncoderReader(mixer, V, D, N, layers=2, heads=2, causal=True)
    rng = np.random.default_rng(1)
    batch = {
        "ids": rng.integers(0, V, (3, 6)).astype(np.int32),
        "places": np.array([[5, 2], [0, 1], [3, 5]], np.int32),
        "targets": rng.integers(0, V, (3, 2)).astype(np.int32),
    }
    unused = {f"blocks.{i}.mixer.k.b" for i in range(2)} if mixer == "attention" else ()
    require_gradient(model, batch, seed=1, unused=unused)


@pytest.mark.parametrize("mixer", SOME)
def test_gradient_of_the_regressor(mixer):
    model = EncoderRegressor(mixer, 3, D, N, layers=2, heads=2, d_ff=0)
    rng = np.random.default_rng(2)
    batch = {"x": rng.normal(size=(3, 5, 3)), "targets": rng.normal(size=3)}
    unused = {f"blocks.{i}.mixer.k.b" for i in range(2)} if mixer == "attention" else ()
    require_gradient(model, batch, seed=3, unused=unused)


@pytest.mark.parametrize("positions", ["add", "none"])
def test_gradient_of_the_input_with_padding(positions):
    """Also for cotangents that are not zero at padding: nothing comes back from there."""
    encoder = Encoder("linear_attention", D, 1, N, heads=2, positions=positions)
    arrays = encoder.init(np.random.default_rng(0))
    params = Params.from_arrays(arrays, XP, "float64")
    rng = np.random.default_rng(1)
    x, mask = XP.asarray(rng.normal(size=(2, 4, D))), XP.asarray(rng.random((2, 4)) < 0.6)

    def read(x):
        out, back = encoder(params, x, mask)
        return out, lambda dout: back(dout, params.zeros_like())

    assert gradcheck(read, x, entries=32, seed=2)
    dx = host(read(x)[1](XP.ones_like(x)))
    assert not dx[~host(mask)].any() and dx[host(mask)].any()

    def placed(table):
        at = Params.from_arrays(arrays, XP, "float64")
        if positions == "add":
            at["positions"][...] = table
        out, back = encoder(at, x, mask)

        def backward(dout):
            grads = at.zeros_like()
            back(dout, grads)
            return grads["positions"]

        return out, backward

    if positions == "add":
        assert gradcheck(placed, params["positions"], entries=N * D, seed=3)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("mixer", [*ALL, "bert"])
def test_alone_as_in_a_batch(mixer, left):
    """Positions count real tokens, so padding on either side says nothing, NaN in it neither."""
    bert = mixer == "bert"
    model = BertClassifier("attention", V, D, C, N, BERT) if bert else classifier(mixer)
    params = parameters(model)
    batch = make_batch([6, 3, 1, 0], 8, left=left)
    batch["ids"][batch["mask"]] %= V - 1
    batch["ids"][~batch["mask"]] = V - 1
    params["embedding"][V - 1] = np.nan
    device = backend.to_device(batch, XP)
    together = host(model.predict(params, device))
    for row, real in enumerate(batch["mask"]):
        ids = batch["ids"][row, real][None]
        alone = {"ids": ids, "mask": np.ones(ids.shape, bool) if ids.size else None}
        if not ids.size:
            alone = {"ids": np.zeros((1, 1), np.int32), "mask": np.zeros((1, 1), bool)}
        logits = host(model.predict(params, backend.to_device(alone, XP)))
        np.testing.assert_allclose(together[row], logits[0], rtol=1e-9, atol=1e-11)

    grads = params.zeros_like()
    model.loss(params, device, 4)[1](grads)
    assert np.isfinite(host(grads.vector)).all()
    assert not host(grads["embedding"][V - 1]).any()


@pytest.mark.parametrize("mixer", BOTH_WAYS)
def test_full_and_causal_forms(mixer):
    """The last token changes the first one's output in the full form alone."""
    for causal in (False, True):
        model = EncoderReader(mixer, V, D, N, layers=1, heads=2, causal=causal)
        params = parameters(model)
        ids = np.array([[1, 2, 3], [1, 2, 4]], np.int32)
        batch = {"ids": ids, "places": np.zeros((2, 1), np.int32)}
        first, second = host(model.predict(params, backend.to_device(batch, XP)))
        assert np.array_equal(first, second) == (causal or mixer == "projection")


def test_positions_tell_orders_apart():
    ids = np.array([[1, 2, 3], [3, 2, 1]], np.int32)
    batch = backend.to_device({"ids": ids, "mask": np.ones((2, 3), bool)}, XP)
    for positions, same in (("add", False), ("none", True)):
        model = classifier("attention", {"positions": positions})
        first, second = host(model.predict(parameters(model), batch))
        assert np.allclose(first, second, rtol=1e-12) == same


def test_backward_adds_and_leaves_the_parameters_alone():
    model = classifier("linear_attention")
    params, batch = parameters(model), backend.to_device(make_batch([3, 5], 5), XP)
    assert_backward_adds(model, params, batch)
    assert_writes_to_nothing(model, params, batch)


def model_and_batch(kind, mixer):
    """One of the three models and five examples for it."""
    rng = np.random.default_rng(0)
    if kind == "classifier":
        model, batch = classifier(mixer, dropout=0.2), make_batch([5, 1, 4, 0, 3], 5)
        if mixer == "tssa":
            model = BertClassifier(mixer, V, D, C, N, BERT, dropout=0.2)
        return model, batch | model.noise(rng, batch)
    if kind == "reader":
        batch = {"ids": rng.integers(0, V, (5, 6)), "places": rng.integers(0, 6, (5, 1))}
        batch["targets"] = rng.integers(0, V, (5, 1))
        return EncoderReader(mixer, V, D, N, layers=1, heads=2, causal=True), batch
    batch = {"x": rng.normal(size=(5, 6, 3)), "targets": rng.normal(size=5)}
    return EncoderRegressor(mixer, 3, D, N, layers=1, heads=2), batch


KINDS = ["classifier", "reader", "regressor"]


@pytest.mark.skipif(XP is not np, reason="the stand-in is for machines without a GPU")
@pytest.mark.parametrize(
    ("kind", "mixer"),
    [
        (kind, mixer)
        for kind in KINDS
        for mixer in ALL
        if kind != "reader" or mixers.TABLE[mixer].can_be_causal
    ],
)
def test_no_host_array_on_the_device(monkeypatch, kind, mixer):
    """On the strict stand-in for CuPy, which has no kernels."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module)
    monkeypatch.setattr("minisum.fast.cuda.compiling.runs_on", lambda *arrays: False)
    model, batch = model_and_batch(kind, mixer)
    arrays = model.init(np.random.default_rng(1))
    found = []
    for xp in (np, fake_cupy.module):
        params = Params.from_arrays(arrays, xp, "float64")
        grads = params.zeros_like()
        runner, on_device = Shards(model, record=False), backend.to_device(batch, xp)
        loss = runner.loss_and_grads(params, grads, on_device)
        assert backend.array_module(runner.predict(params, on_device)) is xp
        found.append((float(loss), host(grads.vector)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind, mixer", list(zip(KINDS, SOME, strict=False)))
def test_shards_add_up(kind, mixer):
    model, batch = model_and_batch(kind, mixer)
    params = parameters(model)
    batch = backend.to_device(batch, XP)
    found = []
    for rows in (5, 2):
        grads = params.zeros_like()
        loss = Shards(model, rows=rows).loss_and_grads(params, grads, batch)
        found.append((float(loss), host(grads.vector).copy()))
        outputs = host(Shards(model, rows=rows).predict(params, batch))
        assert len(outputs) == 5
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)


def test_float32_stays_float32():
    model = classifier("gla")
    params = parameters(model, dtype="float32")
    batch = backend.to_device(make_batch([3, 5], 5), XP)
    assert model.predict(params, batch).dtype == np.float32


@pytest.mark.parametrize(
    "encoder, words",
    [
        ({"positions": "multiply"}, "positions"),
        ({"heads": 3}, "heads"),
        ({"causal": False}, "causal by construction"),
    ],
)
def test_refusals(encoder, words):
    with pytest.raises(UserError, match=words):
        classifier("deltanet", encoder)


def test_refuses_a_text_too_long():
    model = classifier("summation")
    batch = backend.to_device(make_batch([N + 1], N + 1), XP)
    with pytest.raises(UserError, match="built for 9 tokens"):
        model.predict(parameters(model), batch)


def test_refuses_an_unknown_mixer():
    with pytest.raises(UserError, match="unknown mixer 'magic'"):
        classifier("magic")


@pytest.mark.parametrize(
    "given, is_encoder",
    [
        ({}, False),
        ({"mixer": "attention"}, False),
        ({"mixer": "mean_embedding"}, False),
        ({"mixer": "all"}, False),
        ({"encoder": True}, True),
        ({"mixer": "attention", "layers": 2}, True),
        ({"mixer": "tssa"}, True),
    ],
)
def test_which_classifier_the_flags_mean(given, is_encoder):
    pytest.importorskip("safetensors")
    from minisum.runs.reading import build_model
    from train import classifier
    from train.run.options import from_flags

    config = from_flags(classifier.ClassifierConfig, given)
    assert config.is_encoder == is_encoder
    if config.mixer != "all":
        model = build_model(**classifier.describe_model(config, vocab=V, classes=2, bag_rows=0))
        assert isinstance(model, EncoderClassifier) == is_encoder
        if is_encoder:
            assert len(model.encoder.blocks) == config.layers


@pytest.mark.parametrize(
    "given, words",
    [
        ({"mixer": "magic"}, "magic"),
        ({"mixer": "mean_embedding", "layers": 2}, "one-layer models only"),
        ({"mixer": "all", "encoder": True}, "one-layer models only"),
        ({"mixer": "tssa", "encoder": False}, "contradicts"),
        ({"layers": 2, "encoder": False}, "contradicts"),
        ({"layers": 2, "recipe": "published"}, "published one-layer"),
        ({"mixer": "attention", "layers": 2, "head_width": "full"}, "published one-layer"),
        ({"mixer": "tssa", "width": 30}, "does not divide"),
    ],
)
def test_flags_that_contradict_each_other(given, words):
    pytest.importorskip("safetensors")
    from train import classifier
    from train.run.options import from_flags

    with pytest.raises(UserError, match=words):
        from_flags(classifier.ClassifierConfig, given)


def test_an_encoder_from_the_command_line(capsys, tmp_path):
    pytest.importorskip("safetensors")
    pytest.importorskip("tokenizers")
    from train import classifier
    from train.command_line import main

    rows = [f"{word} {i}\t{word}" for i in range(30) for word in ("cat", "dog")]
    (tmp_path / "animals.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    flags = ["--data", tmp_path / "animals.tsv", "--mixer", "tssa", "--layers", 2, "--width", 8]
    flags += ["--threads", 1, "--epochs", 2, "--max-len", 4, "--validation", 0.2]
    flags += ["--out", tmp_path / "run"]
    assert main(classifier.Classification, [str(flag) for flag in flags]) == 0
    arrays, _ = checkpoint.load(tmp_path / "run" / "best.safetensors")
    assert {name.split(".")[1] for name in arrays if name.startswith("blocks.")} == {"0", "1"}
    unknown = ["--mixer", "magic", "--out", str(tmp_path / "other")]
    assert main(classifier.Classification, unknown) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in (*mixers.TABLE, "mean_embedding"))
