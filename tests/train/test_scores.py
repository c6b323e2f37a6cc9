"""What a classifier leaves of its test set: every number counted again by hand."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from cli_runs import SMALL, call, refused

import minisum
from minisum.runs.explanation import softmax
from train.run.scores import by_class, calibration_error, fit_temperature


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def calibrated(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("calibrated") / "run"
    flags = ["--epochs", 4, "--lr", 0.02, "--calibrate", "--validation", 0.3]
    assert call("--data", corpus, *SMALL, *flags, "--out", out) == 0
    return out


def test_the_files_say_what_result_json_says(calibrated):
    result = json.loads((calibrated / "result.json").read_text())
    found = rows_of(calibrated / "predictions.csv")
    assert result["class_names"] == ["cat", "cow", "dog"]
    assert len(found) == result["test_examples"]
    right = [row["true"] == row["predicted"] for row in found]
    assert np.mean(right) == pytest.approx(result["test_accuracy"])
    run = minisum.load(calibrated)
    assert run.predict([row["text"] for row in found]) == [row["predicted"] for row in found]
    chances = run.predict_proba([row["text"] for row in found]).max(axis=1)
    written = [float(row["probability"]) for row in found]
    np.testing.assert_allclose(written, chances, atol=2e-6)
    assert run.temperature == result["temperature"] != 1
    confusion = json.loads((calibrated / "confusion.json").read_text())
    for i, true in enumerate(confusion["classes"]):
        for j, predicted in enumerate(confusion["classes"]):
            count = sum((r["true"], r["predicted"]) == (true, predicted) for r in found)
            assert confusion["rows_true_columns_predicted"][i][j] == count
    f1 = [float(row["f1"]) for row in rows_of(calibrated / "classes.csv")]
    assert np.mean(f1) == pytest.approx(result["test_macro_f1"])


def test_the_confusion_matrix_is_drawn(calibrated):
    pytest.importorskip("matplotlib")
    assert (calibrated / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_resuming_a_calibrated_run_keeps_its_temperature(calibrated):
    before = (calibrated / "best.safetensors").read_bytes()
    assert call("--resume", "--out", calibrated) == 0
    assert (calibrated / "best.safetensors").read_bytes() == before


def test_by_class():
    confusion = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    a, b, c = by_class(confusion, ["a", "b", "c"])
    assert (a["precision"], a["recall"], a["examples"]) == (1, 0.75, 4)
    assert a["f1"] == pytest.approx(2 * 1 * 0.75 / 1.75)
    assert (b["precision"], b["recall"]) == (pytest.approx(2 / 3), 1)
    assert (c["precision"], c["recall"], c["f1"], c["examples"]) == (0, 0, 0, 0)


def test_calibration_error_of_known_predictions():
    sure, yes = np.full(10, 0.95), np.ones(10, bool)
    assert calibration_error(sure, yes) == pytest.approx(0.05)
    assert calibration_error(sure, ~yes) == pytest.approx(0.95)
    # Over- and underconfidence do not cancel between bins.
    mixed, right = np.array([0.9] * 4 + [0.55] * 4), np.array([1, 1, 0, 0, 1, 1, 1, 1]) > 0
    assert calibration_error(mixed, right) == pytest.approx((0.4 * 4 + 0.45 * 4) / 8)
    assert calibration_error(np.ones(1), yes[:1]) == 0


@given(seed=st.integers(0, 2**32 - 1), true=st.floats(0.3, 5))
def test_no_temperature_near_the_fitted_one_is_better(seed, true):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(200, 4)) * 3
    labels = np.array([rng.choice(4, p=p) for p in softmax(logits / true)])

    def nll(temperature):
        return -np.log(softmax(logits / temperature)[np.arange(200), labels]).mean()

    fitted = fit_temperature(logits, labels)
    assert 0.01 < fitted < 100
    assert nll(fitted) <= min(nll(fitted * 1.001), nll(fitted / 1.001)) + 1e-12


def test_nothing_is_fitted_where_every_label_is_the_likeliest():
    logits = np.array([[2.0, 1.0], [0.0, 3.0]])
    assert fit_temperature(logits, np.array([0, 1])) == 1
    assert fit_temperature(logits, np.array([1, 0])) > 1


def test_calibration_needs_validation_rows(capsys, corpus, tmp_path):
    flags = ["--data", corpus, "--calibrate", "--select", "test", "--out", tmp_path / "run"]
    assert "--calibrate needs validation rows" in refused(capsys, *flags)


def test_test_texts_that_were_trained_on_are_counted(corpus, tmp_path, capsys):
    lines = corpus.read_text().splitlines()
    rows = [json.loads(line) for line in lines[:7]]
    rows = [{"text": " " + r["text"].upper(), "label": r["label"]} for r in rows]
    rows += [{"text": "entirely new", "label": "cat"}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [*SMALL, "--epochs", 1, "--test-data", tmp_path / "test.jsonl"]
    assert call("--data", corpus, *flags, "--out", tmp_path / "run") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_texts_in_train"] == 7
    assert "test texts in train 7" in capsys.readouterr().out
    assert call("--data", corpus, *SMALL, "--epochs", 1, "--out", tmp_path / "other") == 0
    result = json.loads((tmp_path / "other" / "result.json").read_text())
    assert result["test_texts_in_train"] == 0
