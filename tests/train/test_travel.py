"""Runs that travel: moved data and folders, refused commands that change nothing, lines between."""

import json
import os
import shutil

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import tiny_runs
from cli_runs import SMALL, call, record_of, refused

from train.run.curves import learning_curves


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_refused_resume_changes_nothing(capsys, straight):
    before = files_of(straight)
    assert "is in epoch 10 already" in refused(capsys, "--resume", "--out", straight, "--epochs", 4)
    assert files_of(straight) == before
    assert call("--resume", "--out", straight) == 0


def test_data_that_moved_is_known_by_its_content(capsys, corpus, straight, tmp_path):
    here = tmp_path / "here.jsonl"
    shutil.copy(corpus, here)
    out = tmp_path / "run"
    flags = ["--lr", 0.02, "--out", out]
    assert call("--data", here, *SMALL, "--epochs", 3, *flags) == 0
    there = tmp_path / "elsewhere" / "there.jsonl"
    there.parent.mkdir()
    here.rename(there)
    moved = tmp_path / "elsewhere" / "moved"
    out.rename(moved)
    before = files_of(moved)
    error = refused(capsys, "--resume", "--out", moved, "--epochs", 10)
    assert "name its new place with --data" in error and files_of(moved) == before
    assert call("--resume", "--out", moved, "--epochs", 10, "--data", there) == 0
    found, expected = record_of(moved), record_of(straight)
    assert found["state"] == expected["state"] and found["metrics"] == expected["metrics"]
    assert call("--resume", "--out", moved) == 0  # the new place is kept
    capsys.readouterr()
    there.write_text(there.read_text().replace("meow", "purr", 1))
    assert "has changed" in refused(capsys, "--resume", "--out", moved, "--epochs", 11)


@pytest.mark.parametrize("task", ["multimodal", "forecast"])
def test_options_that_are_lists_may_be_given_again(tmp_path, task, capsys):
    data = tiny_runs.corpus(tmp_path, task)
    columns = {"multimodal": ("--numeric-columns", "size,rooms"), "forecast": ("--columns", "tide")}
    again = columns[task]
    more = [] if task == "multimodal" else again
    assert tiny_runs.train(task, data, tmp_path / "run", "--epochs", 1, *more) == 0
    assert tiny_runs.call(task, "--resume", "--out", tmp_path / "run", *again) == 0
    other = [again[0], "size" if task == "multimodal" else "flow"]
    capsys.readouterr()
    assert tiny_runs.call(task, "--resume", "--out", tmp_path / "run", *other) == 2
    assert "contradicts the run" in capsys.readouterr().err


def test_lines_between_epochs_change_no_bit(corpus, straight, tmp_path):
    out = tmp_path / "run"
    flags = ["--log-every", 3, "--eval-every", 5, "--epochs", 2, "--lr", 0.02, "--out", out]
    assert call("--data", corpus, *SMALL, *flags) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    an_epoch = next(line["step"] for line in lines if "train_loss" in line)
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == list(range(3, 2 * an_epoch + 1, 3))
    between = [line for line in lines if "val_loss" in line and "train_loss" not in line]
    assert [line["step"] for line in between] == [
        step for step in range(5, 2 * an_epoch, 5) if step % an_epoch
    ]
    epochs = [line for line in lines if "train_loss" in line]
    expected = record_of(straight)["metrics"][:2]
    times = ("seconds", "tokens_per_second", "sha256")
    expected = [{k: v for k, v in line.items() if k not in times} for line in expected]
    assert [{k: v for k, v in line.items() if k not in times} for line in epochs] == expected
    # Stopped and resumed, with the lines of both sessions.
    assert call("--resume", "--out", out, "--epochs", 3) == 0
    again = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert again[: len(lines)] == lines and again[-1]["step"] == 3 * an_epoch
    drawn = (out / "curves.svg").read_text()
    assert drawn == learning_curves(out / "metrics.jsonl") and drawn.count("<polyline") == 5
    # Killed after the result, before its pictures.
    (out / "curves.svg").unlink()
    (out / "confusion.png").unlink(missing_ok=True)
    before = files_of(out)
    assert call("--resume", "--out", out) == 0
    assert files_of(out).keys() - before.keys() >= {"curves.svg"}
    assert (out / "curves.svg").read_text() == drawn
    (out / "curves.svg").write_text("<svg/>")
    assert call("--resume", "--out", out) == 0
    assert (out / "curves.svg").read_text() == drawn


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_the_latest_run(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        assert call("--data", corpus, *SMALL, "--epochs", 1, "--out", f"runs/{name}") == 0
        assert (tmp_path / "runs/latest").resolve() == tmp_path / "runs" / name
    assert call("--resume", "--out", "runs/latest", "--epochs", 2) == 0
    assert (tmp_path / "runs/latest").is_symlink()
    assert json.loads((tmp_path / "runs/two/result.json").read_text())["epochs"] == 2
    assert call("--data", corpus, *SMALL, "--epochs", 1, "--out", tmp_path / "elsewhere") == 0
    assert not (tmp_path / "latest").exists()
