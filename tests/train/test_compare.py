"""python -m train.compare: its cells and files, what it refuses, and that it learns what it can."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_runs

pytest.importorskip("safetensors")

from interrupting import interrupted
from readable import tree_of

from minisum import files, mixers
from minisum.params import flatten
from train.compare import __main__ as compare
from train.compare import cell as compare_cell
from train.compare import tasks as compare_tasks
from train.run.options import parser_for
from train.run.report import Report

ROOT = Path(__file__).parents[2]
TINY = ["--width", "8", "--heads", "2", "--layers", "1", "--steps", "3", "--batch-size", "4",
        "--threads", "1", "--seeds", "1", "--test-size", "12"]  # fmt: skip
RECALL = [*TINY, "--length", "8", "--vocab-size", "16", "--pairs", "2"]
LISTOPS = [*TINY, "--task", "listops", "--length", "30", "--min-length", "3", "--train-size", "60"]


def call(*arguments):
    return compare.main([str(argument) for argument in arguments])


def cells(out):
    found = sorted((out / "cells").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in found}


def config_of(*arguments):
    parser = parser_for(compare.CompareConfig, "compare", "")
    return compare.resolve(vars(parser.parse_args([str(a) for a in arguments])))


def animals():
    """The rows of a small labelled corpus in place of a large one."""
    rng = np.random.default_rng(0)
    words = np.array(["cat", "dog", "sees", "a", "the", "big", "old"])
    texts = [" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(80)]
    return [{"text": text, "label": str("cat" in text)} for text in texts]


def test_files_of_a_comparison(capsys, tmp_path):
    out = tmp_path / "run"
    assert call(*RECALL, "--mixers", "tssa, deltanet,tssa", "--seeds", 2, "--out", out) == 0
    done = cells(out)
    names = ["tssa", "deltanet", "projection"]
    assert set(done) == {f"{name}-seed{seed}" for name in names for seed in (0, 1)}
    content = json.loads((out / "comparison.json").read_text())
    readers = "most frequent answer", "first token", "last token"
    assert list(content["baselines"]) == ["chance", "any of its values", *readers]
    assert content["baselines"]["chance"] == 1 / 8
    assert {row["mixer"] for row in content["mixers"]} == set(names)
    for row in content["mixers"]:
        values = [cell["accuracy"] for cell in done.values() if cell["mixer"] == row["mixer"]]
        assert row["mean"] == pytest.approx(np.mean(values))
        assert (row["lowest"], row["highest"]) == (min(values), max(values))
        assert row["seeds"] == 2 and row["diverged"] == 0
    means = [row["mean"] for row in content["mixers"]]
    assert means == sorted(means, reverse=True)
    with open(out / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["mixer"] for row in rows[:3]] == [row["mixer"] for row in content["mixers"]]
    assert [row["mixer"] for row in rows[3:5]] == ["(chance)", "(any of its values)"]
    assert float(rows[0]["mean"]) == means[0]
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*names, "any of its values", "once, after the last"))
    for cell in done.values():
        assert cell["steps"] == 3 and cell["tokens_per_second"] > 0
        assert cell["step_memory_bytes"] > 4 * 8 * 8
        model = compare_tasks.build(config_of(*RECALL)).model(cell["mixer"])
        arrays = model.init(np.random.default_rng(0))
        assert cell["parameters"] == sum(a.size for a in flatten(arrays).values())
    assert done["deltanet-seed0"]["state_numbers"] > done["tssa-seed0"]["state_numbers"] > 0
    assert done["projection-seed0"]["state_numbers"] == 0


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "run"
    assert call(*RECALL, "--mixers", "summation", "--scaling", 64, "--out", out) == 0
    for name in ("comparison.png", "scaling.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert call(*RECALL, "--mixers", "summation", "--scaling", 64, "--out", tmp_path / "a") == 0
    assert not list((tmp_path / "a").glob("*.png"))


def test_finished_cells_are_not_run_again(capsys, monkeypatch, tmp_path):
    """More mixers and seeds join; what is there stays to the byte; a lost cell comes back equal."""
    out = tmp_path / "run"
    assert call(*RECALL, "--mixers", "summation", "--out", out) == 0
    before = {path: path.read_bytes() for path in (out / "cells").iterdir()}
    capsys.readouterr()
    more = [*RECALL, "--mixers", "summation,tssa", "--seeds", "2", "--out", out]
    assert call(*more) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert len(cells(out)) == 6
    assert "summation, seed 0:" not in capsys.readouterr().out

    lost = out / "cells" / "summation-seed0.json"
    old = files.read_json(lost)
    lost.unlink()
    assert call(*more) == 0
    new = files.read_json(lost)
    times = {"tokens_per_second", "seconds", "step_memory_bytes"}
    assert {k: v for k, v in new.items() if k not in times} == {
        k: v for k, v in old.items() if k not in times
    }

    def never(*arguments):
        raise AssertionError("a finished cell was run")

    monkeypatch.setattr(compare, "train_cell", never)
    assert call(*more) == 0


@pytest.mark.parametrize(
    "change, words",
    [
        (["--lr", "0.01"], "--lr 0.01 contradicts"),
        (["--pairs", "1"], "contradicts"),
        (["--width", "10"], "--width 10 contradicts"),
        (["--d-ff", "0"], "--d-ff 0 contradicts"),
    ],
)
def test_other_settings_are_refused(capsys, tmp_path, change, words):
    assert call(*RECALL, "--mixers", "projection", "--out", tmp_path / "a") == 0
    before = cells(tmp_path / "a")
    assert call(*RECALL, *change, "--mixers", "projection", "--out", tmp_path / "a") == 2
    assert words in capsys.readouterr().err
    assert cells(tmp_path / "a") == before


def test_changed_and_damaged_cells(capsys, tmp_path):
    out = tmp_path / "a"
    again = [*RECALL, "--mixers", "projection", "--out", out]
    assert call(*again) == 0
    path = out / "cells" / "projection-seed0.json"
    tiny_runs.edit(path, settings_sha256="0")
    assert call(*again) == 2
    path.write_text("{")
    assert call(*again) == 2
    said = capsys.readouterr().err
    assert "other settings" in said and "damaged" in said


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("--mixers magic", "--mixers 'magic'"),
        ("--mixers ,", "--mixers names nothing"),
        ("--mixers projection --without-projection", "no mixer is left"),
        ("--task recall --max-depth 3", "--max-depth has no meaning for --task recall"),
        ("--task listops --pairs 3", "--pairs has no meaning"),
        ("--task regression --dropout 0.1", "--dropout has no meaning"),
        ("--task nothing", "--task"),
        ("--task bytes --dataset nowhere", "--dataset"),
        ("--heads 3", "does not divide"),
        ("--length 10", "even length of at least 16"),
        ("--vocab-size 32", "even vocabulary"),
        ("--lr 0", "above 0"),
        ("--scaling 3", "at least 64"),
        ("--steps 0", "at least 1"),
        ("--task listops --length 5 --min-length 10 --train-size 5", "ListOps trees"),
    ],
)
def test_refusals(capsys, tmp_path, arguments, words):
    assert call(*arguments.split(), "--threads", 1, "--out", tmp_path / "run") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "cells").exists()


def test_divergence_ends_a_cell_and_not_the_comparison(capsys, tmp_path):
    out = tmp_path / "run"
    wild = ["--lr", "1e30", "--warmup", "0", "--mixers", "attention"]
    assert call(*RECALL, *wild, "--out", out) == 0
    cell = cells(out)["attention-seed0"]
    assert cell["accuracy"] is None and cell["diverged_at"] <= 3
    assert "1 of 1 diverged" in capsys.readouterr().out


@pytest.mark.parametrize("mixer", mixers.names(causal=True))
def test_every_mixer_takes_part(mixer):
    task = compare_tasks.build(config_of(*RECALL))
    batch = task.train_batch(0, 1)
    model = task.model(mixer)
    assert model.encoder.blocks[0].mixer.causal
    assert batch["ids"].shape == (4, 8)
    assert compare_cell.state_numbers(task, mixer) >= 0


def test_a_mixer_without_a_causal_form(capsys, tmp_path):
    """Takes part where no task asks for one, without a size of its state; all leaves it out."""
    out = tmp_path / "run"
    assert call(*LISTOPS, "--mixers", "fastformer", "--out", out) == 0
    assert cells(out)["fastformer-seed0"]["state_numbers"] is None
    assert call(*RECALL, "--mixers", "fastformer", "--out", tmp_path / "b") == 2
    assert "cannot be causal" in capsys.readouterr().err
    assert "fastformer" not in config_of(*RECALL, "--mixers", "all").names()
    assert "fastformer" in config_of(*LISTOPS, "--mixers", "all").names()


@pytest.mark.parametrize(
    "arguments",
    [
        LISTOPS,
        [*TINY, "--task", "bytes", "--length", "20", "--train-size", "40"],
        [*TINY, "--task", "python_docs", "--length", "9", "--train-size", "40"],
        [*TINY, "--task", "regression", "--pairs", "4", "--dims", "2", "--noise-kind", "mixed"],
    ],
    ids=["listops", "bytes", "words", "regression"],
)
def test_tasks(monkeypatch, arguments):
    """Batches depend on (seed, step) alone, and the test set is covered once."""
    if "python_docs" in arguments:
        pytest.importorskip("tokenizers")
    monkeypatch.setattr("data.generated.python_docs.rows", animals)
    config = config_of(*arguments)
    task, again = compare_tasks.build(config), compare_tasks.build(config)
    assert task.sha256 == again.sha256
    again.train_batch(0, 5)
    for seed, step in ((0, 1), (1, 40), (0, 40)):
        for name, array in task.train_batch(seed, step).items():
            assert np.array_equal(array, again.train_batch(seed, step)[name])
    first, second = task.train_batch(0, 1), task.train_batch(1, 1)
    key = "x" if "x" in first else "ids"
    assert not np.array_equal(first[key], second[key])
    assert not np.array_equal(first[key], task.train_batch(0, 2)[key])
    assert sum(batch["targets"].size for batch in task.test_batches()) == 12
    assert set(task.baselines()) and all(np.isfinite(list(task.baselines().values())))
    report = Report()
    result = compare_cell.train_cell(task, "linear_attention", 0, report)
    assert np.isfinite(result[task.metric])


def test_scores_by_hand():
    """Means over all targets, batches of unequal size included."""

    class Answers:
        """Says class 0 everywhere, or the number 1."""

        def predict(self, params, batch):
            if "x" in batch:
                return np.ones(len(batch["targets"]))
            return np.broadcast_to([1.0, 0.0], (*batch["targets"].shape, 2))

    sets = compare_tasks.build(config_of(*LISTOPS, "--batch-size", 5))
    score = compare_cell.test_scores(sets, Answers(), None, np)["accuracy"]
    assert score == pytest.approx((sets.test[1] == 0).mean()) and score > 0
    lines = compare_tasks.build(config_of(*TINY, "--task", "regression", "--batch-size", 5))
    targets = lines.test_set()["targets"].astype(np.float64)
    score = compare_cell.test_scores(lines, Answers(), None, np)["squared_error"]
    assert score == pytest.approx(((targets - 1) ** 2).mean())


def test_an_epoch_sees_every_example_once():
    task = compare_tasks.build(config_of(*LISTOPS))
    rows = [task.train_batch(3, step)["ids"] for step in range(1, 16)]  # 60 examples by 4
    seen = {tuple(row[row > 0]) for ids in rows for row in ids}
    assert seen == {tuple(tree) for tree in task.train[0]}


def test_listops_baselines_by_hand():
    """A table from the first token: MAX is 9 in training, so 9 is what it says."""
    from data.generated import listops
    from minisum.text.batches import Ragged

    def examples(*texts):
        trees = [tree_of(text) for text in texts]
        values = np.array([listops.evaluate(tree) for tree in trees])
        return listops.Examples(Ragged.from_list(trees), values)

    train = examples("[MAX 9 1 ]", "[MAX 3 9 ]", "[MAX 1 1 ]", "[MIN 0 4 ]")
    test = examples("[MAX 9 5 ]", "[MAX 2 3 ]", "[MIN 5 0 ]", "[MAX 1 [MIN 4 [SM 1 2 ] ] ]")
    assert compare_tasks.listops_baselines(train, test) == {
        "first token only": 0.5, "top level only": 0.75, "top two levels": 0.75,
    }  # fmt: skip


def test_learns_recall_and_regression():
    """Where the mixing matters it shows: attention beats no mixing, in a few seconds."""
    small = ["--width", 16, "--heads", 1, "--layers", 1, "--threads", 1, "--test-size", 200]
    config = config_of(*small, "--task", "regression", "--dims", 1, "--pairs", 6, "--noise", 0,
                     "--steps", 150, "--lr", 0.01, "--batch-size", 32)  # fmt: skip
    task = compare_tasks.build(config)
    report = Report()
    mixing, alone = (
        compare_cell.train_cell(task, mixer, 0, report)["squared_error"]
        for mixer in ("attention", "projection")
    )
    assert mixing < 0.6 * alone
    assert task.baselines()["least squares"] < 1e-6


def test_scaling_is_measured(tmp_path):
    task = compare_tasks.build(config_of(*RECALL))
    row = compare_cell.scale_cell(task, "summation", 300)
    assert [r["n"] for r in row["rows"]] == [64, 128, 256]
    assert row["rows"][2]["memory_bytes"] > 2 * row["rows"][0]["memory_bytes"]
    assert compare_cell.slope([{"n": 4, "seconds": 1.0}, {"n": 16, "seconds": 16.0}]) == 2


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_ctrl_c_keeps_finished_cells(tmp_path):
    out = tmp_path / "a run"
    words = [*RECALL, "--mixers", "summation,tssa", "--steps", "40", "--seeds", "500"]
    status, said = interrupted("train.compare", words, out)
    assert status == 130
    assert b"finished cells are kept" in said and b"Traceback" not in said
    assert all(cell["steps"] == 40 for cell in cells(out).values())
    assert not list(out.rglob("*.tmp"))
