"""Tasks of train.compare that are tested on longer texts: what they train on, ask, and count."""

import json

import numpy as np
import pytest

pytest.importorskip("safetensors")

from test_compare import TINY, call, cells, config_of

from train.compare import cell as compare_cell
from train.compare import recall
from train.compare import tasks as compare_tasks
from train.run.report import Report

TASKS = ["parity", "modular", "S3", "A5", "S5", "copying", "selective_copying", "induction"]
SHORT = {
    "parity": ["--length", 6, "--test-length", 10],
    "copying": ["--length", 3, "--test-length", 7, "--vocab-size", 6],
    "selective_copying": ["--length", 9, "--test-length", 18, "--letters", 2, "--vocab-size", 6],
    "induction": ["--length", 8, "--test-length", 32, "--vocab-size", 6],
}


def build(task, *more):
    short = SHORT.get(task, ["--length", 4, "--test-length", 10])
    return compare_tasks.build(config_of(*TINY, "--task", task, *short, *more))


def one_hot(targets, vocab):
    return np.eye(vocab)[targets]


@pytest.mark.parametrize("name", TASKS)
def test_a_reader_that_knows_is_always_right(name):
    task = build(name)
    scores = task.test_scores(lambda batch: one_hot(batch["targets"], task.vocab))
    assert scores["accuracy"] == scores["whole"] == 1
    lengths = {"copying": [3, 6], "selective_copying": [9, 18], "induction": [8, 16, 32]}
    expected = lengths.get(name, list(range(1, 11)))
    assert scores["lengths"] == [[n, 1, 1] for n in expected]


@pytest.mark.parametrize("name", [name for name in TASKS if name != "induction"])
def test_a_mistake_spoils_the_rest_of_a_text(name):
    """Texts with one wrong answer, their second: right before, and wrong as a whole from there."""
    task = build(name)

    def predict(batch):
        answers = batch["targets"].copy()
        answers[0, 1] = (answers[0, 1] + 1) % task.vocab
        return one_hot(answers, task.vocab)

    scores = task.test_scores(predict)
    wrong = 3 / 12  # the first text of each of three batches
    if name in SHORT and name != "parity":
        N = task.test_set(task.lengths[0])["targets"].shape[1]
        assert scores["lengths"][0] == pytest.approx(
            [task.lengths[0], 1 - wrong / N, 1 - wrong], abs=1e-4
        )
    else:
        expected = [[1, 1, 1], [2, 1 - wrong, 1 - wrong], [3, 1, 1 - wrong]]
        assert scores["lengths"][:3] == expected


@pytest.mark.parametrize("name", TASKS)
def test_batches_and_models(name):
    """Batches depend on (seed, step) alone; the model takes the longest text of the tests."""
    task, again = build(name), build(name)
    assert task.sha256 == again.sha256
    for seed, step in ((0, 1), (0, 2), (1, 1)):
        one, other = task.train_batch(seed, step), again.train_batch(seed, step)
        assert all(np.array_equal(one[key], other[key]) for key in one)
    longest = task.test_set()["ids"].shape[1]
    assert (
        longest == task.max_len > max(task.train_batch(0, step)["ids"].shape[1] for step in (1, 2))
    )
    for mixer in ("attention", "cosformer", "deltaproduct:steps=3"):
        result = compare_cell.train_cell(task, mixer, 0, Report())
        assert 0 <= result["accuracy"] <= 1 and result["lengths"][-1][0] == task.lengths[-1]


def test_what_is_trained():
    parity = build("parity")
    ends = np.concatenate([parity.train_batch(0, s)["places"][:, 0] for s in range(1, 40)])
    assert set(ends) == {3, 4, 5, 6}
    every = build("parity", "--ask", "every")
    assert every.train_batch(0, 1)["targets"].shape == (4, 6)
    assert build("S3", "--ask", "last").train_batch(0, 1)["targets"].shape == (4, 1)
    letters = {build("copying").train_batch(0, step)["targets"].shape[1] for step in range(1, 40)}
    assert letters == {1, 2, 3}


@pytest.mark.parametrize("name", TASKS)
def test_readers_of_one_token_score_by_chance(name):
    task = build(name, "--test-size", 2000)
    scores = task.baselines()
    assert list(scores) == ["chance", "most frequent answer", "first token", "last token"]
    answers = {"modular": 5, "parity": 2, "S3": 6, "A5": 60, "S5": 120}.get(name, 4)
    assert scores["chance"] == 1 / answers
    for reader in ("most frequent answer", "last token"):
        assert abs(scores[reader] - 1 / answers) < 5 * np.sqrt(1 / answers / 2000)


def test_the_first_token_of_a_text_to_be_copied_is_its_first_answer():
    task = build("copying", "--test-size", 2000)
    N, letters = task.lengths[-1], task.vocab - 2
    known = 1 / N + (1 - 1 / N) / letters
    assert abs(task.baselines()["first token"] - known) < 0.02


def test_files_and_resume(capsys, tmp_path):
    out = tmp_path / "run"
    names = "deltanet:conv=0:beta_max=2,deltanet:conv=0"
    arguments = [*TINY, "--task", "S3", "--length", 3, "--test-length", 6, "--out", out]
    assert call(*arguments, "--mixers", names) == 0
    found = cells(out)
    assert set(found) == {
        "deltanet conv=0 beta_max=2-seed0", "deltanet conv=0-seed0", "projection-seed0",
    }  # fmt: skip
    assert "S3" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in (out / "cells").iterdir()}
    assert call(*arguments, "--mixers", f"{names},all") == 0
    assert {path: path.read_bytes() for path in before} == before
    content = json.loads((out / "comparison.json").read_text())
    listed = [row["mixer"] for row in content["mixers"]]
    assert {"deltanet", "deltanet:conv=0", "kda"} < set(listed) and len(set(listed)) == len(listed)
    printed = capsys.readouterr().out
    assert "3: answers, texts" in printed and "6: answers, texts" in printed
    pytest.importorskip("matplotlib")
    assert (out / "lengths.png").read_bytes().startswith(b"\x89PNG")


def test_own_settings_and_quick():
    config = config_of("--task", "parity")
    assert (config.width, config.layers, config.positions, config.steps) == (32, 1, "none", 300)
    assert config_of("--task", "recall").width == 64
    quick = config_of("--task", "parity", "--quick")
    assert (quick.steps, quick.seeds) == (150, 1)
    assert config_of("--task", "parity", "--quick", "--steps", 7, "--seeds", 2).steps == 7


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("--task S3 --test-length 5", "--test-length 5 is below --length 24"),
        ("--task induction --test-length 5", "--test-length 5 is below --length 64"),
        ("--task S3 --letters 3", "--letters has no meaning for --task S3"),
        ("--task copying --ask last", "--ask has no meaning for --task copying"),
        ("--task recall --test-length 99", "--test-length has no meaning for --task recall"),
        ("--task S3 --mixers deltanet:beta=2", "deltanet has no option 'beta'"),
        ("--task parity --min-length 41", "min_length"),
    ],
)
def test_refusals(capsys, tmp_path, arguments, words):
    assert call(*arguments.split(), "--threads", 1, "--out", tmp_path / "run") == 2
    assert words in capsys.readouterr().err


def test_a_beta_of_two_learns_parity_and_a_beta_of_one_does_not():
    """Small and short: at four times the length of training, every place of most texts is right."""
    settings = ["--task", "parity", "--ask", "every", "--length", 12, "--test-length", 48]
    settings += ["--width", 16, "--heads", 2, "--steps", 120, "--batch-size", 32, "--threads", 1]
    task = compare_tasks.build(config_of(*settings, "--test-size", 64))
    scores = {
        beta: compare_cell.train_cell(task, f"deltanet:conv=0:beta_max={beta}", 0, Report())
        for beta in (1.0, 2.0)
    }
    assert scores[2.0]["whole"] > 0.9 and scores[2.0]["accuracy"] > 0.95
    assert scores[1.0]["whole"] == 0 and scores[1.0]["accuracy"] < 0.75


SWEEP = ["--lengths", "16,32", "--widths", "8,16", "--rates", "1e-3,1e-2", "--steps", 2,
         "--batch-size", 4, "--test-size", 8, "--vocab-size", 64, "--threads", 1,
         "--mixers", "attention,deltanet:conv=0"]  # fmt: skip


def test_a_sweep_keeps_the_rate_that_validation_likes(capsys, monkeypatch, tmp_path):
    """Not the one that the test set likes; a second call does nothing again."""
    seen = []

    def train(task, mixer, seed, report):
        config = task.config
        seen.append((mixer, config.length, config.width, config.lr, config.positions))
        good = config.lr == 1e-2
        return {"accuracy": 0.25 if good else 0.5, "validation": 0.75 if good else 0.5,
                "state_numbers": config.width}  # fmt: skip

    monkeypatch.setattr(recall, "train_cell", train)
    sweep = [str(word) for word in [*SWEEP, "--out", tmp_path / "a"]]
    assert recall.main(sweep) == 0
    assert len(seen) == len(set(seen)) == 16
    assert {(mixer, positions) for mixer, *_, positions in seen} == {
        ("attention", "add"), ("deltanet:conv=0", "none"),
    }  # fmt: skip
    rows = json.loads((tmp_path / "a" / "recall.json").read_text())["rows"]
    assert len(rows) == 8
    assert all((row["rate"], row["accuracy"]) == (1e-2, 0.25) for row in rows)
    monkeypatch.setattr(recall, "train_cell", None)
    assert recall.main(sweep) == 0
    assert recall.main([*sweep, "--widths", "8", "--rates", "1e-2"]) == 0
    known = json.loads((tmp_path / "a" / "recall.json").read_text())["baselines"]
    assert [row["accuracy"] for row in known if row["mixer"] == "(any of its values)"] == [1, 0.5]
    assert recall.main([*sweep, "--steps", "3"]) == 2
    assert "--steps 3 contradicts" in capsys.readouterr().err


def test_a_quick_sweep_takes_other_flags_first(monkeypatch, tmp_path):
    widths = []

    def train(task, mixer, seed, report):
        widths.append(task.config.width)
        return {"accuracy": 0.5, "validation": 0.5, "state_numbers": 1}

    monkeypatch.setattr(recall, "train_cell", train)
    assert recall.main(["--quick", "--widths", "8", "--out", str(tmp_path / "a")]) == 0
    assert widths == [8] * 4 * 2  # mixers and rates


def test_a_sweep(tmp_path):
    sweep = [*SWEEP, "--widths", 8, "--lengths", 16, "--out", tmp_path / "a"]
    assert recall.main([str(word) for word in sweep]) == 0
    rows = json.loads((tmp_path / "a" / "recall.json").read_text())["rows"]
    assert [row["state_numbers"] for row in rows] == [2 * 2 * 8 * 16, 2 * 8 * 8]
    pytest.importorskip("matplotlib")
    assert (tmp_path / "a" / "recall.png").read_bytes().startswith(b"\x89PNG")
