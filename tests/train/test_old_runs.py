"""Runs of minisum 0.1 are refused in one sentence that names the version."""

import hashlib
import json

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import safetensors.numpy
from cli_runs import refused

from minisum import checkpoint
from minisum.errors import UserError
from train.analyze.__main__ import main as analysis

# What minisum 0.1 wrote: no "format" anywhere.
CONFIG = {
    "task": "classifier", "data_sha256": "0" * 64, "dataset": "python_docs", "data": None,
    "test_data": None, "limit_train": None, "limit_test": None, "validation": 0.05,
    "tokenizer": "word", "vocab_size": 10000, "mixer": "summation", "width": 4, "layers": 1,
    "heads": 4, "max_len": 512, "dropout": 0.5, "recipe": "default", "epochs": 3,
    "batch_size": 64, "lr": 0.0003, "schedule": "constant", "warmup": 0, "weight_decay": 0.0,
    "epsilon": 1e-08, "clip_value": None, "clip_norm": None, "ema": 0.999, "select": "validation",
    "patience": None, "plateau": None, "seed": 0, "backend": "numpy", "threads": 1,
    "shard_rows": None, "save_every": 60.0, "text_column": None, "label_column": None,
    "drop_unknown": False, "padding": "right", "encoder": False, "d_ff": None,
    "head_width": "split", "pooling": None, "token_dropout": 0.5, "unmasked": False, "ranks": 1,
}  # fmt: skip
BEST = {
    "embedding": np.zeros((9, 4), "f4"), "positions": np.zeros((512, 4), "f4"),
    "proj.W": np.zeros((4, 4), "f4"), "head.W": np.zeros((2, 4), "f4"),
    "head.b": np.zeros(2, "f4"),
}  # fmt: skip


def write_as_before(path, arrays, meta):
    """A checkpoint in the format of minisum 0.1."""
    text = json.dumps(meta, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    entry = json.dumps({"sha256": digest.hexdigest(), "meta": text})
    path.write_bytes(safetensors.numpy.save(arrays, {"minisum": entry}))


@pytest.fixture
def old(tmp_path):
    out = tmp_path / "old"
    out.mkdir()
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2))
    (out / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "val_accuracy": 0.5}) + "\n")
    card = {"vocab": 9, "class_names": ["a", "b"]}
    write_as_before(out / "best.safetensors", BEST, {"task": "classifier", "card": card})
    position = {"epoch": 2, "step": 0, "weight": 0, "history": [{"epoch": 1}]}
    write_as_before(out / "last.safetensors", {"params": np.zeros(99, "f4")},
                    {"position": position, "adam_steps": 7})  # fmt: skip
    return out


def test_no_command_reads_a_run_of_another_version(capsys, old, tmp_path):
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    for flags in (["--resume", "--out", old], ["--predict", old], ["--resume", "--out", old,
                  "--epochs", 9]):  # fmt: skip
        error = refused(capsys, *flags)
        assert "was written by minisum 0.1" in error and "train again" in error
        assert str(old) in error
    assert analysis([str(old), "--out", str(tmp_path / "pictures")]) == 2
    assert "was written by minisum 0.1" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()}


@pytest.mark.parametrize("name", ["best", "last"])
def test_no_checkpoint_of_another_version_is_read(old, name):
    with pytest.raises(UserError, match=rf"{name}.safetensors was written by minisum 0.1; minisum"):
        checkpoint.load(old / f"{name}.safetensors")


def test_a_later_format_is_not_taken_for_an_older_one(old, capsys):
    (old / "config.json").write_text(json.dumps(CONFIG | {"format": 3}))
    assert "was written by a later minisum (format 3)" in refused(capsys, "--resume", "--out", old)
