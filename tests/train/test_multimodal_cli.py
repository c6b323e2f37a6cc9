"""python -m train.multimodal as its users meet it."""

import csv
import io
import json
import sys

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from train import multimodal, rivals
from train.command_line import main

SMALL = ["--width", "8", "--max-len", "12", "--batch-size", "16", "--threads", "1", "--lr", "0.01",
         "--keep-state"]  # fmt: skip
WORDS = {"cheap": -2.0, "fine": 0.0, "grand": 2.0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Prices: 100 + 20 for a word + 10 size + noise. Rooms say nothing and are often missing."""
    path = tmp_path_factory.mktemp("corpus") / "houses.csv"
    rng = np.random.default_rng(0)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["description", "size", "rooms", "price"])
        for i in range(300):
            word, size = rng.choice(list(WORDS)), rng.normal()
            rooms = "" if rng.random() < 0.3 else int(rng.integers(1, 6))
            price = 100 + 10 * WORDS[word] + 10 * size + rng.normal()
            writer.writerow([f"a {word} house number {i}", f"{size:.4f}", rooms, f"{price:.3f}"])
    return path


def call(*arguments):
    return main(multimodal.Multimodal, [str(argument) for argument in arguments])


def flags(corpus):
    return ["--data", corpus, "--text-column", "description", "--target", "price",
            "--numeric-columns", "size,rooms"]  # fmt: skip


@pytest.fixture(scope="module")
def compared(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "run"
    assert call(*flags(corpus), *SMALL, "--mixer", "all", "--epochs", 25, "--out", out) == 0
    return out


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_text_and_numbers_beat_either_alone(compared):
    results = {r["mixer"]: r for r in json.loads((compared / "comparison.json").read_text())}
    solved = ["ridge", *(["tfidf_ridge"] if rivals.available() else [])]
    assert list(results) == ["summation", "attention", "words", *solved]
    for mixer in ("summation", "attention"):
        for other in ("words", "ridge"):
            assert results[mixer]["test_rmse"] < 0.7 * results[other]["test_rmse"], mixer
        assert results[mixer]["test_r2"] > 0.8
    ridge = results["ridge"]
    assert ridge["test_rmse"] == pytest.approx(ridge["ridge_rmse"], rel=1e-5)
    assert ridge["test_rmse"] < ridge["mean_rmse"] and ridge["epochs"] == 1
    for result in results.values():
        assert 0 < result["test_mae"] <= result["test_rmse"]


def test_the_folder_of_a_run(compared):
    files = {path.name for path in (compared / "summation").iterdir()}
    assert {"config.json", "result.json", "best.safetensors", "tokenizer.json"} <= files
    result = result_of(compared / "summation")
    assert result["task"] == "multimodal" and result["target"] == "price"
    assert "flagged" in result["missing_numbers"]


def test_a_picture_where_matplotlib_is(compared):
    pytest.importorskip("matplotlib")
    for mixer in ("summation", "ridge"):
        start = (compared / mixer / "predicted.png").read_bytes()[:8]
        assert start == b"\x89PNG\r\n\x1a\n"


def answers(monkeypatch, capsys, folder, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    capsys.readouterr()
    status = call("--predict", folder, "--batch-size", 2)
    out, error = capsys.readouterr()
    return status, out.splitlines(), error


@pytest.mark.parametrize("mixer", ["summation", "attention", "words", "ridge"])
def test_prediction(compared, monkeypatch, capsys, mixer):
    """csv and JSON lines agree; a missing number is legal; a target column is not looked at."""
    table = 'description,size,rooms\n"a grand house",1.5,3\na cheap house,-1.5,\n"a, fine",0,NA\n'
    objects = [
        {"description": "a grand house", "size": 1.5, "rooms": 3},
        {"description": "a cheap house", "size": "-1.5", "rooms": None, "price": "?"},
        {"size": 0, "rooms": "", "description": "a, fine", "more": []},
    ]
    lines = "\n".join(json.dumps(row) for row in objects)
    status, out, _ = answers(monkeypatch, capsys, compared / mixer, table)
    assert status == 0 and len(out) == 3 and float(out[0]) > float(out[1])
    status, again, _ = answers(monkeypatch, capsys, compared / mixer, lines)
    assert status == 0 and again == out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("description,size\na,1\n", "standard input, row 1 has no column 'rooms'"),
        ("description,size,rooms\na,1,2\na,big,2\n", "row 2, column 'size': 'big' is not a number"),
        ('{"description": "a", "size": 1, "rooms": 2}\n{', "standard input, line 2: not JSON"),
        ("", "standard input has no rows"),
    ],
)
def test_rows_that_cannot_be_predicted(compared, monkeypatch, capsys, text, message):
    status, _, error = answers(monkeypatch, capsys, compared / "summation", text)
    assert status == 2 and message in error and error.count("\n") == 1


def test_resuming_gives_the_same_numbers(corpus, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    few = [*flags(corpus), *SMALL, "--token-dropout", 0.2]
    assert call(*few, "--epochs", 3, "--out", whole) == 0
    assert call(*few, "--epochs", 1, "--out", parts) == 0
    assert call("--resume", "--out", parts, "--epochs", 3) == 0
    a, b = result_of(whole), result_of(parts)
    assert a["test_rmse"] == b["test_rmse"] and a["val_rmse"] == b["val_rmse"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "nothing"], "no column 'nothing'"),
        (["--numeric-columns", "size,description"], "'description' cannot play two parts"),
        (["--numeric-columns", ","], "--numeric-columns"),
        (["--heads", "3", "--mixer", "attention"], "--heads 3 does not divide --width 8"),
        (["--mixer", "ridge", "--epochs", "3"], "--epochs: --mixer ridge is solved, not trained"),
        (["--mixer", "sum"], "--mixer 'sum'"),
        (["--layers", "2"], "--layers 2: it must be"),
    ],
)
def test_wrong_input_is_one_sentence_and_status_2(corpus, tmp_path, capsys, arguments, message):
    out = tmp_path / "run"
    assert call(*flags(corpus), *SMALL, *arguments, "--out", out) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not out.exists()


def test_cells_that_are_no_numbers_are_named(tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_text("text,a,y\none,1,1\ntwo,many,2\n")
    assert call("--data", path, "--numeric-columns", "a", "--target", "y") == 2
    assert "row 2, column 'a': 'many' is not a number" in capsys.readouterr().err
