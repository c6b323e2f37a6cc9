"""--init-from: what a run begins with, what it leaves, and what it refuses."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import bert_folder
import tiny_runs

import minisum
from minisum import checkpoint
from minisum.models.pretrained import Pretrained

FLAGS = {
    "classifier": ["--validation", "0.2"],
    "multimodal": ["--text-column", "text", "--target", "price", "--numeric-columns", "size,rooms"],
}
SMALL = ["--threads", "1", "--max-len", "9", "--warmup", "0", "--batch-size", "16", "--keep-state"]


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Drawing takes most of a small run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)
        yield


@pytest.fixture(scope="module", params=FLAGS)
def trained(request, tmp_path_factory, undrawn):
    """(task, folder of the encoder, flags, a run of two epochs)"""
    folder = tmp_path_factory.mktemp(request.param)
    encoder, data = bert_folder.write(folder / "bert"), tiny_runs.corpus(folder, request.param)
    flags = ["--data", data, *SMALL, *FLAGS[request.param], "--init-from", encoder]
    flags += ["--schedule", "constant"]
    assert tiny_runs.call(request.param, *flags, "--epochs", 2, "--out", folder / "run") == 0
    return request.param, encoder, flags, folder / "run"


def result(out):
    return json.loads((out / "result.json").read_text(encoding="utf-8"))


def test_a_run_says_what_it_took(trained, tmp_path):
    task, encoder, _, out = trained
    said = result(out)["init_from"]
    assert said.startswith(f"37 of the 39 arrays in {encoder}; left out: pooler.dense.bias, ")
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (config["width"], config["heads"], config["recipe"]) == (8, 2, "finetune")


def test_training_begins_with_the_weights(trained, tmp_path):
    """With a learning rate of nearly nothing they are what best.safetensors holds."""
    task, encoder, flags, _ = trained
    out = tmp_path / "run"
    assert tiny_runs.call(task, *flags, "--epochs", 1, "--lr", "1e-30", "--out", out) == 0
    kept, _ = checkpoint.load(out / checkpoint.BEST)
    for name, array in Pretrained(encoder).arrays.items():
        if name in kept:
            np.testing.assert_array_equal(kept[name], array[: len(kept[name])], name)


def test_the_folder_of_the_run_is_enough_to_predict(trained, tmp_path):
    task, _, _, out = trained
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in (checkpoint.BEST, checkpoint.TOKENIZER):
        (moved / name).write_bytes((out / name).read_bytes())
    run = minisum.load(moved)
    ends = [bert_folder.VOCAB.index(token) for token in ("[CLS]", "[SEP]")]
    assert run.reader.encode([""])[0].tolist() == ends
    if task == "classifier":
        assert np.ptp(run.predict_proba(["cat sees cow", "a dog"]), axis=0).all()
    else:
        rows = [{"text": text, "size": 3, "rooms": 2} for text in ("cat sees cow", "a dog")]
        assert np.ptp(run.predict(rows)) > 0


def test_a_resumed_run_is_the_run_that_was_not_stopped(trained, tmp_path):
    task, _, flags, out = trained
    half = tmp_path / "half"
    assert tiny_runs.call(task, *flags, "--epochs", 1, "--out", half) == 0
    assert tiny_runs.call(task, "--resume", "--epochs", 2, "--out", half) == 0
    assert tiny_runs.state_of(half) == tiny_runs.state_of(out)


@pytest.mark.parametrize(
    ("task", "flags", "sentence"),
    [
        ("classifier", ["--width", "16"], "--width: the encoder of --init-from decides it"),
        ("classifier", ["--tokenizer", "word"], "--tokenizer: the encoder of --init-from"),
        ("classifier", ["--max-len", "21"], "the encoder reads from 3 to 20 tokens"),
        ("classifier", ["--max-len", "2"], "the encoder reads from 3 to 20 tokens"),
        ("classifier", ["--mixer", "all"], "--mixer all has one-layer models only"),
        ("classifier", ["--mixer", "simpletron:scale=half"], "scale 'half': choose one of root"),
        ("multimodal", ["--mixer", "ridge"], "--mixer ridge reads no text with an encoder"),
    ],
)
def test_refusals(trained, capsys, tmp_path, task, flags, sentence):
    if task != trained[0]:
        pytest.skip("of the other task")
    assert tiny_runs.call(task, *trained[2], *flags, "--out", tmp_path / "run") == 2
    assert sentence in capsys.readouterr().err


def test_a_first_token_needs_an_encoder(trained, capsys, tmp_path):
    task, encoder, flags, _ = trained
    data = flags[1]
    assert tiny_runs.call(task, "--data", data, "--pooling", "first", "--out", tmp_path / "a") == 2
    assert "first" in capsys.readouterr().err
    if task == "classifier":
        more = [*flags, "--pooling", "first", "--epochs", 1, "--mixer", "simpletron:output=True"]
        assert tiny_runs.call(task, *more, "--out", tmp_path / "b") == 0
        assert "37 of the 39 arrays" in result(tmp_path / "b")["init_from"]


def test_a_tokenizer_of_more_tokens_than_the_encoder_knows(capsys, tmp_path):
    words = bert_folder.word_pieces()
    words.add_tokens(["more"])
    folder = bert_folder.write(tmp_path / "bert", tokenizer=words)
    data = tiny_runs.corpus(tmp_path, "classifier")
    flags = ["--data", data, *SMALL, "--init-from", folder, "--out", tmp_path / "run"]
    assert tiny_runs.call("classifier", *flags) == 2
    assert "has 57 tokens, and the encoder knows 56" in capsys.readouterr().err
