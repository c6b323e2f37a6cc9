"""python -m train.classifier as its users meet it: runs, stops, kills, and going on."""

import json
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from cli_runs import (
    COMMAND,
    ROOT,
    SMALL,
    TIMES,
    call,
    posix,
    record_of,
    refused,
    spawn,
)

from minisum import files
from minisum.runs.reading import build_model
from train import classifier, rivals
from train.run.options import from_flags


def test_files_of_a_run(straight):
    config = json.loads((straight / "config.json").read_text())
    assert (config["task"], config["width"], config["threads"]) == ("classifier", 8, 1)
    lines = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 11))
    needed = {"epoch", "step", "train_loss", "val_loss", "val_accuracy", *TIMES[:2]}
    assert all(needed <= line.keys() for line in lines)
    result = json.loads((straight / "result.json").read_text())
    named = {"dataset", "mixer", "backend", "device", "seed", "parameters", "best_epoch"}
    assert named | {"test_accuracy", "test_macro_f1", "versions", *TIMES} <= result.keys()
    assert result["data_sha256"] == config["data_sha256"]
    best = max(lines, key=lambda line: (line["val_accuracy"], -line["val_loss"]))
    assert result["best_epoch"] == best["epoch"]
    assert result["test_accuracy"] > result["majority_accuracy"] + 0.2


def test_tokenizer_knows_the_training_rows_only(straight):
    """Every row has a word of its own, so the vocabulary tells which rows it was made from."""
    vocabulary = json.loads((straight / "tokenizer.json").read_text())["model"]["vocab"]
    own = [word for word in vocabulary if word.startswith("n") and word[1:].isdigit()]
    result = json.loads((straight / "result.json").read_text())
    assert len(own) == result["train_examples"] < 160 - result["test_examples"]


STOPPED = """
import os, sys
from train import classifier
from train.command_line import main
from train.run.trainer import Trainer
reduce_grads, (number, step) = Trainer.reduce_grads, map(int, sys.argv[1:3])

def stopping(self):
    if self.adam.steps == step:
        os.kill(os.getpid(), number)
    reduce_grads(self)

Trainer.reduce_grads = stopping
sys.exit(main(classifier.Classification, sys.argv[3:]))
"""


@posix
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_and_resumed_is_the_same_run(corpus, straight, tmp_path, number, status):
    """A child is asked to stop in the middle of a step, and goes on with the command it prints."""
    out = tmp_path / "a run"
    step = random.Random(number).randrange(100)
    arguments = ["--data", corpus, *SMALL, "--epochs", 10, "--lr", 0.02, "--out", out]
    child = spawn(int(number), step, *arguments, command=[sys.executable, "-c", STOPPED])
    output, errors = child.communicate(timeout=60)
    assert child.returncode == status, errors
    assert "Traceback" not in errors and f"--resume --out '{out}'" in errors
    assert not (out / "result.json").exists()
    assert call("--resume", "--out", out) == 0
    assert record_of(out) == record_of(straight)


def test_resuming_a_finished_run_changes_nothing(capsys, straight):
    before = record_of(straight)
    assert call("--resume", "--out", straight, "--width", 8) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert record_of(straight) == before


def test_recipe_yields_to_flags(corpus, tmp_path):
    out = tmp_path / "run"
    arguments = ["--recipe", "published", "--data", corpus, "--epochs", 1, "--width", 8]
    assert call(*arguments, "--max-len", 12, "--mixer", "attention", "--out", out) == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["epochs"], config["width"]) == (1, 8)
    assert (config["lr"], config["clip_value"], config["dropout"]) == (1e-4, 1.0, 0.0)
    assert config["unmasked"] is True and config["padding"] == "left"


@pytest.mark.parametrize(("flags", "width"), [({}, 32), ({"d_ff": 5}, 5), ({"d_ff": 0}, None)])
def test_the_width_of_an_encoders_token_networks(flags, width):
    config = from_flags(classifier.ClassifierConfig, {"encoder": True, "width": 8} | flags)
    model = build_model(**classifier.describe_model(config, vocab=9, classes=2, bag_rows=0))
    block = model.init(np.random.default_rng(0))["blocks"]["0"]
    assert model.dropout == config.dropout == 0.5
    assert ("up" in block) == (width is not None)
    assert width is None or block["up"]["W"].shape == (width, 8)


def test_help():
    child = spawn("--help")
    output, errors = child.communicate(timeout=30)
    assert child.returncode == 0 and not errors
    for words in ("--mixer", "(default: 256)", "--recipe published", "--predict", "summation"):
        assert words in output
    assert "(default: None)" not in output and "==SUPPRESS==" not in output


def test_epochs_added_later_survive_another_stop(corpus, straight, tmp_path):
    """config.json takes the new number, so that going on once more needs no flag."""
    out = tmp_path / "run"
    arguments = ["--data", corpus, *SMALL, "--lr", 0.02, "--out", out]
    assert call(*arguments, "--epochs", 2) == 0
    assert call("--resume", "--out", out, "--epochs", 10) == 0
    assert json.loads((out / "config.json").read_text())["epochs"] == 10
    assert record_of(out) == record_of(straight)


def test_patience_is_free_on_resume(corpus, tmp_path):
    """A run that stopped by itself goes on to the bits of one that never did."""
    out, straight = tmp_path / "run", tmp_path / "straight"
    arguments = ["--data", corpus, *SMALL, "--epochs", 10, "--lr", 0.3]
    assert call(*arguments, "--patience", 0, "--out", straight) == 0
    assert call(*arguments, "--patience", 1, "--out", out) == 0
    assert json.loads((out / "result.json").read_text())["epochs"] < 10
    assert call("--resume", "--out", out, "--patience", 0) == 0
    assert json.loads((out / "config.json").read_text())["patience"] == 0
    assert record_of(out) == record_of(straight)


def test_the_default_run_stops_by_itself_and_the_published_one_does_not():
    assert from_flags(classifier.ClassifierConfig, {}).patience == 10
    published = from_flags(classifier.ClassifierConfig, {"recipe": "published"})
    assert (published.patience, published.epochs) == (0, 20)


def test_other_threads_are_said(capsys, corpus, tmp_path):
    out = tmp_path / "run"
    assert call("--data", corpus, *SMALL, "--epochs", 1, "--out", out) == 0
    capsys.readouterr()
    assert call("--resume", "--out", out, "--epochs", 2, "--threads", 2) == 0
    assert "to rounding, not to the bit" in capsys.readouterr().err


@posix
def test_full_disk_then_room_again(corpus, straight, tmp_path):
    """No file may pass a few blocks: the state cannot be saved, then it can."""
    out = tmp_path / "run"
    arguments = ["--data", str(corpus), *SMALL, "--epochs", "10", "--lr", "0.02", "--out", str(out)]
    line = 'ulimit -f 20; exec "$@"'
    child = subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert child.returncode == 2 and child.stderr.startswith("error: cannot write"), child.stderr
    assert len(child.stderr.splitlines()) == 1
    assert call("--resume", "--out", out) == 0
    assert record_of(out) == record_of(straight)


def test_macro_f1():
    """Class 3 occurs nowhere and does not count."""
    labels, chosen = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1])
    assert classifier.macro_f1(chosen, labels, 4) == pytest.approx((4 / 5 + 2 / 4 + 0) / 3)


def test_all_mixers(capsys, corpus, tmp_path):
    out = tmp_path / "run"
    arguments = ["--data", corpus, *SMALL, "--epochs", 1, "--mixer", "all", "--out", out]
    assert call(*arguments) == 0
    table = capsys.readouterr().out.strip().split("\n\n")[-1].splitlines()
    mixers = ["summation", "attention", "mean_embedding"]
    mixers += ["svm", "naive_bayes"] * rivals.available()
    rows = [line.split()[0] for line in table]
    assert rows[rows.index("mixer") :][: len(mixers) + 2] == ["mixer", *mixers, "majority"]
    results = [files.read_json(out / mixer / "result.json") for mixer in mixers]
    assert [result["mixer"] for result in results] == mixers
    assert json.loads((out / "comparison.json").read_text()) == results
    assert "choose one of the folders" in refused(capsys, "--predict", out)
    assert call("--resume", "--out", out) == 0


@posix
@pytest.mark.parametrize("closed", ["pipe", "stdout"])
def test_a_reader_that_goes_away(corpus, tmp_path, closed):
    """A broken or closed standard output silences a run; it still finishes."""
    out = tmp_path / "run"
    arguments = ["--data", str(corpus), *SMALL, "--epochs", "2", "--out", str(out)]
    tail = "| true" if closed == "pipe" else ">&-"
    line = f'"$@" 2>"{tmp_path}/errors" {tail}'
    subprocess.run(["sh", "-c", line, "sh", *COMMAND, *arguments], cwd=ROOT, timeout=60)
    assert (tmp_path / "errors").read_text() == ""
    assert (out / "result.json").exists()
