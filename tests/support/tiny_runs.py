"""The four commands on corpora so small that a run takes a tenth of a second."""

import importlib
import json
import random
import sys

import pytest

from minisum import checkpoint, files
from train.command_line import main
from train.run.folder import RunFolder

TASKS = ("classifier", "causal", "multimodal", "forecast")
COMMON = ["--threads", "1", "--epochs", "3", "--width", "8", "--lr", "0.01", "--batch-size", "16",
          "--keep-state"]  # fmt: skip
SMALL = {
    "classifier": ["--max-len", "8", "--heads", "2", "--validation", "0.2", "--patience", "0"],
    "causal": ["--max-len", "16", "--heads", "2", "--layers", "2", "--vocab-size", "290"],
    "multimodal": ["--max-len", "8", "--heads", "2", "--text-column", "text", "--target", "price",
                   "--numeric-columns", "size,rooms"],
    "forecast": ["--window", "16", "--horizon", "4", "--patch", "4", "--stride", "4", "--d-ff", "8",
                 "--heads", "2", "--layers", "1"],
}  # fmt: skip


def corpus(folder, task):
    """Write the corpus of `task` into `folder` and return its path."""
    rng = random.Random(1)
    words = ["small", "big", "old", "new", "red", "the", "a", "sees", "and"]
    sounds = {"cat": "meow", "dog": "woof", "cow": "moo"}
    lines = []
    for number in range(90):
        label = rng.choice(list(sounds))
        text = " ".join([*rng.choices(words, k=rng.randint(1, 6)), f"n{number}", sounds[label]])
        size = rng.randint(1, 9)
        lines.append({"text": text, "label": label, "size": size, "rooms": rng.randint(1, 4),
                      "price": size * 10 + rng.random()})  # fmt: skip
    if task == "causal":
        path = folder / "animals.txt"
        path.write_text("".join(row["text"] + "\n" for row in lines), encoding="utf-8")
    elif task == "forecast":
        path = folder / "tides.csv"
        rows = [f"{i},{(i % 8) + rng.random():.3f},{rng.random():.3f}" for i in range(160)]
        path.write_text("time,tide,flow\n" + "\n".join(rows) + "\n", encoding="utf-8")
    else:
        keep = ("text", "label") if task == "classifier" else ("text", "size", "rooms", "price")
        path = folder / "rows.jsonl"
        rows = [json.dumps({name: row[name] for name in keep}) for row in lines]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def command(task):
    """The subclass of Task that `python -m train.TASK` trains."""
    module = importlib.import_module(f"train.{task}")
    return next(kind for kind in vars(module).values() if getattr(kind, "name", None) == task)


def call(task, *arguments):
    """The exit status of `python -m train.TASK arguments`, run in this process."""
    return main(command(task), [str(argument) for argument in arguments])


def train(task, data, out, *more):
    return call(task, "--data", data, *COMMON, *SMALL[task], "--out", out, *more)


def trained(folder, task):
    """(its data, a run of two epochs, one of three), all in `folder`."""
    data = corpus(folder, task)
    for epochs in (2, 3):
        with pytest.MonkeyPatch.context() as patch:  # drawing takes most of a small run's time
            patch.setitem(sys.modules, "matplotlib.figure", None)
            assert train(task, data, folder / f"of {epochs}", "--epochs", epochs) == 0
    return data, folder / "of 2", folder / "of 3"


def edit(path, **changes):
    """Change a sealed file, as one who knows the format would: with a digest that matches."""
    files.write_json(path, files.read_json(path) | changes, sealed=True)


def state_of(out):
    """Everything that training computed, as bytes and numbers."""
    folder = RunFolder(out)
    arrays, _ = checkpoint.load(folder.last)
    result = json.loads(folder.result.read_text())
    scores = {name: value for name, value in result.items() if name.startswith("test_")}
    return {name: array.tobytes() for name, array in arrays.items()}, scores
