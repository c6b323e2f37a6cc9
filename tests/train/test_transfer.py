"""train.transfer: what a cell begins with, which rate is used, and what a second call does."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import bert_folder

from data.sets.classification import ClassificationData, Examples
from minisum import ops
from minisum.params import Params
from train.run.folder import RunFolder
from train.run.report import Report
from train.transfer import __main__ as command
from train.transfer import corpus as texts
from train.transfer import lessons, matching

SMALL = [
    "--steps",
    "30",
    "--max-len",
    "12",
    "--warmup",
    "0",
    "--threads",
    "1",
    "--match-steps",
    "3",
]


def sounds(rows, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows).astype(np.int32)
    words = [rng.choice(["big", "old", "red", "new"], 3) for _ in labels]
    read = [" ".join([*w, ("moo", "woof")[label]]) for w, label in zip(words, labels, strict=True)]
    return Examples(read, labels)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Cows and dogs in the place of the named sets, and no picture."""
    splits = {name: sounds(rows, rows) for name, rows in (("train", 96), ("val", 20), ("test", 40))}
    data = ClassificationData("sounds", ["cow", "dog"], splits, "0" * 64)
    monkeypatch.setattr(texts, "load_classification", lambda **sizes: data)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.fixture
def encoder(tmp_path):
    return bert_folder.write(tmp_path / "bert")


def config_of(encoder, *flags):
    parser = command.sweeps.parser_for(command.TransferConfig, "transfer", "")
    given = parser.given(["--init-from", str(encoder), *SMALL, *flags])
    return command.resolve(given)


def test_a_second_call_does_only_what_is_missing(encoder, tmp_path, monkeypatch):
    flags = ["--init-from", str(encoder), *SMALL, "--seeds", "2", "--out", str(tmp_path / "out")]
    first = [*flags, "--mixers", "attention,first_order", "--lr", "1e-2"]
    first += ["--starts", "matched,matched_weights,random"]
    assert command.main(first) == 0
    found = json.loads((tmp_path / "out/transfer.json").read_text(encoding="utf-8"))
    names = [(runs[0]["mixer"], runs[0]["start"], len(runs)) for runs in found["results"]]
    assert names == [
        ("attention", "random", 2), ("first_order", "matched", 2), ("first_order", "random", 2),
    ]  # fmt: skip
    for runs in found["results"]:
        assert [step for step, _ in runs[0]["curve"]] == [15, 30]
        assert runs[0]["test_accuracy"] == runs[0]["curve"][-1][1]
        assert runs[0]["curve"] != runs[1]["curve"] or runs[0]["test_accuracy"] == 1
    assert all(0 <= cell["frozen"] <= 1 for cell in found["untrained"])

    monkeypatch.setattr(command, "train_cell", None)
    monkeypatch.setattr(command, "untrained_cell", None)
    assert command.main(first) == 0
    assert json.loads((tmp_path / "out/transfer.json").read_text(encoding="utf-8")) == found


def test_the_rate_is_chosen_on_validation_rows(encoder, tmp_path, monkeypatch):
    """Not on test rows, and no rate of a run that diverged."""
    validation = {0.1: 0.8, 0.2: 0.7, 0.3: None}

    def train_cell(corpus, mixer, start, rate, seed):
        found = {"mixer": mixer, "start": start, "lr": rate, "seed": seed, "curve": [[15, rate]]}
        scores = {"val_accuracy": validation[rate], "test_accuracy": rate}
        return found | scores | {"diverged_at": None, "seconds": 0.0}

    monkeypatch.setattr(command, "train_cell", train_cell)
    config = config_of(encoder, "--lr", "0.3,0.2,0.1", "--mixers", "summation", "--seeds", "3")
    command.transfer(config, RunFolder(tmp_path), Report(silent=True))
    found = json.loads((tmp_path / "transfer.json").read_text(encoding="utf-8"))
    assert {run["lr"] for runs in found["results"] for run in runs} == {0.1}
    assert [run["seed"] for run in found["results"][0]] == [0, 1, 2]


def test_what_models_begin_with(encoder):
    corpus = texts.Corpus(config_of(encoder))
    model = corpus.model("tssa")
    starts = {s: corpus.first_values(model, "tssa", s, 0) for s in ("all", "words", "random")}
    other = corpus.first_values(model, "tssa", "random", 1)
    weights = corpus.pretrained.arrays
    same = np.testing.assert_array_equal
    for start in ("all", "words"):
        same(starts[start]["embedding"], weights["embedding"])
    same(starts["all"]["blocks.0.up.W"], weights["blocks.0.up.W"])
    same(starts["words"]["blocks.0.up.W"], starts["random"]["blocks.0.up.W"])
    assert (starts["random"]["blocks.0.up.W"] != other["blocks.0.up.W"]).any()


def read_by_attention(corpus, rows=20):
    """What each layer of attention reads and answers, and the mask, on test rows."""
    teacher = corpus.model("attention")
    fixed = Params.from_arrays(corpus.pretrained.fill(teacher.init(np.random.default_rng(0))))
    for block in teacher.encoder.blocks:
        block.mixer = matching.Watched(block.mixer)
    batch = corpus.batch("test", np.arange(rows))
    teacher.features(fixed, batch["ids"], batch["mask"])
    return [block.mixer.seen for block in teacher.encoder.blocks], batch["mask"]


@pytest.mark.parametrize("mixer", ["linear_attention:feature_map=hedgehog", "summation"])
def test_matching_brings_a_mixer_nearer_to_attention(encoder, mixer):
    corpus = texts.Corpus(config_of(encoder, "--match-steps", "40"))
    model, (seen, mask) = corpus.model(mixer), read_by_attention(corpus)

    def errors(start):
        filled = corpus.first_values(model, mixer, start, 0)
        params = Params.from_arrays(filled)
        for name, block in enumerate(model.encoder.blocks):
            x, answer = seen[name]
            y, _ = block.mixer(params["blocks"][str(name)]["mixer"], x, mask)
            yield float(((y * block.scale - answer) ** 2).sum() / (answer**2).sum())

    before, after = list(errors("all")), list(errors("matched"))
    assert all(b < 0.95 * a for a, b in zip(before, after, strict=True)), (before, after)
    whole = corpus.first_values(model, mixer, "all", 0)
    matched = corpus.first_values(model, mixer, "matched", 0)
    changed = {name for name, a in matched.items() if (a != whole[name].astype(a.dtype)).any()}
    assert changed and all(".mixer." in name for name in changed)


def cross_entropy_of_weights(mixer, params, x, mask):
    """Softmax's weights against those of the features, written out: nats a query and head."""
    q, k = (x @ params[name]["W"].T + params[name]["b"] for name in "qk")
    q, k = (a.reshape(*x.shape[:2], mixer.heads, -1).transpose(0, 2, 1, 3) for a in (q, k))
    real = mask[:, None, :, None] & mask[:, None, None, :]
    wanted = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])) * real
    phi_q, phi_k = (
        ops.hedgehog(a, params[f"{name}_map"]["W"], params[f"{name}_map"]["b"])[0]
        for name, a in (("q", q), ("k", k))
    )
    found = (phi_q @ phi_k.swapaxes(-1, -2) + 1e-6) * real
    wanted, found = (a / np.maximum(a.sum(axis=-1, keepdims=True), 1e-30) for a in (wanted, found))
    return -(wanted * np.log(np.where(real, found, 1))).sum() / (mask.sum() * mixer.heads)


def test_maps_learn_attentions_weights_and_nothing_else_moves(encoder):
    """The loss falls in every layer, and its gradient is its slope in a direction."""
    name, start = "linear_attention:feature_map=hedgehog", "matched_weights"
    corpus = texts.Corpus(config_of(encoder, "--match-steps", "40"))
    begins = [corpus.can_begin(m, start) for m in (name, "linear_attention", "attention")]
    assert begins == [True, False, False]
    block, (seen, mask) = corpus.model(name).encoder.blocks[0], read_by_attention(corpus)
    filled = {s: corpus.first_values(corpus.model(name), name, s, 0) for s in ("all", start)}
    before, after = (Params.from_arrays(filled[s], dtype="float64") for s in ("all", start))
    for layer in before["blocks"]:
        losses = [
            cross_entropy_of_weights(
                block.mixer, p["blocks"][layer]["mixer"], seen[int(layer)][0], mask
            )
            for p in (before, after)
        ]
        assert losses[1] < losses[0], (layer, losses)
    moved = {n for n, a in filled[start].items() if (a != filled["all"][n].astype(a.dtype)).any()}
    assert moved and all("_map." in n for n in moved)

    rng, own = np.random.default_rng(0), after["blocks"]["0"]["mixer"]
    mask = np.arange(mask.shape[1]) < rng.integers(3, 13, (20, 1))
    x = rng.normal(size=(*mask.shape, block.mixer.width))
    found = lessons.weights(block, own, (x, None), mask)
    assert sorted(found) == ["k_map", "q_map"]
    for part, gradients in found.items():
        for letter, gradient in gradients.items():
            direction, values = rng.normal(size=gradient.shape), own[part][letter]
            slopes = []
            for step in (1e-5, -1e-5):
                values += step * direction
                slopes.append(cross_entropy_of_weights(block.mixer, own, x, mask) / (2 * step))
                values -= step * direction
            assert sum(slopes) == pytest.approx((gradient * direction).sum(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "--init-from FOLDER is missing"),
        (["--init-from", "nowhere"], "cannot read"),
        (["--init-from", ".", "--starts", "some"], "some"),
        (["--init-from", ".", "--lr", "fast"], "--lr fast: numbers are needed"),
        (["--init-from", ".", "--mixers", "softmux"], "unknown mixer 'softmux'"),
    ],
)
def test_refusals(flags, sentence, capsys, tmp_path):
    assert command.main([*flags, "--threads", "1", "--out", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err
