"""Runs of python -m train.classifier on a small corpus, and what they leave: for test_cli*.py."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from minisum import checkpoint
from train import classifier
from train.command_line import main
from train.run.folder import RunFolder

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "train.classifier"]
TIMES = ("seconds", "tokens_per_second", "peak_memory_bytes", "sha256")
# Sizes for a corpus of 160 rows: the default average and forgetting are meant for thousands.
SMALL = ["--width", "8", "--max-len", "12", "--batch-size", "8", "--threads", "1",
         "--patience", "0", "--token-dropout", "0.1", "--ema", "0.9",
         "--validation", "0.1", "--keep-state"]  # fmt: skip

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


def corpus_in(folder):
    """A file of 160 rows in three classes, told apart by one word in most of them."""
    path = folder / "animals.jsonl"
    rng = random.Random(3)
    words = ["small", "big", "old", "new", "red", "the", "a", "sees", "and"]
    sounds = {"cat": "meow", "dog": "woof", "cow": "moo"}
    with open(path, "w", encoding="utf-8") as file:
        for number in range(160):
            label = rng.choice(list(sounds))
            text = [*rng.choices(words, k=rng.randint(2, 10)), f"n{number}", sounds[label]]
            rng.shuffle(text)
            file.write(json.dumps({"text": " ".join(text), "label": label}) + "\n")
    return path


def straight_run(data, folder):
    """Ten epochs without a stop, on `data`."""
    out = folder / "run"
    assert call("--data", data, *SMALL, "--epochs", 10, "--lr", 0.02, "--out", out) == 0
    return out


def call(*arguments):
    """The exit status of the command line, run in this process."""
    return main(classifier.Classification, [str(argument) for argument in arguments])


def spawn(*arguments, command=COMMAND, **options):
    command = [*command, *(str(argument) for argument in arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(command, cwd=ROOT, **options)


def record_of(out):
    """What a run leaves, times apart."""

    def untimed(record):
        return {name: value for name, value in record.items() if name not in TIMES}

    folder = RunFolder(out)
    state, _ = checkpoint.load(folder.last)
    best, _ = checkpoint.load(folder.best)
    return {
        "state": {name: array.tobytes() for name, array in state.items()},
        "best": {name: array.tobytes() for name, array in best.items()},
        "metrics": [untimed(json.loads(line)) for line in folder.metrics.read_text().splitlines()],
        "result": untimed(json.loads(folder.result.read_text())),
        "tokenizer": (Path(out) / "tokenizer.json").read_bytes(),
    }


def refused(capsys, *arguments):
    """Run; it must fail with status 2 and one sentence on standard error, which is returned."""
    assert call(*arguments) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: "), errors
    return errors[0]
