"""python -m train.forecast as its users meet it."""

import csv
import io
import json
import sys

import numpy as np
import pytest

pytest.importorskip("safetensors")

from train import forecast
from train.command_line import main

SMALL = ["--window", "24", "--horizon", "6", "--width", "8", "--heads", "2", "--d-ff", "8",
         "--patch", "8", "--stride", "4", "--threads", "1", "--lr", "0.01",
         "--keep-state"]  # fmt: skip
TRAINED = ["hybrid", "attention", "summation", "projection"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two hourly columns that repeat every 8 rows, one with gaps, and one that is constant."""
    path = tmp_path_factory.mktemp("series") / "tides.csv"
    rng = np.random.default_rng(0)
    t = np.arange(400)
    tide = 3 * np.sin(2 * np.pi * t / 8) + 0.1 * rng.normal(size=400)
    flow = 50 + 10 * np.cos(2 * np.pi * t / 8) + rng.normal(size=400)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["date", "tide", "flow", "still"])
        for i in range(400):
            when = f"2024-01-{1 + i // 24:02} {i % 24:02}:00:00"
            shown = "" if i % 37 == 5 else f"{flow[i]:.4f}"
            writer.writerow([when, f"{tide[i]:.4f}", shown, 7])
    return path


def call(*arguments):
    return main(forecast.Forecasting, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def compared(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "run"
    flags = ["--data", table, *SMALL, "--epochs", 12, "--limit-train", 100]
    flags += ["--season", 8, "--mixer", "all"]
    assert call(*flags, "--out", out) == 0
    return out


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_a_season_is_learned(compared):
    results = {r["mixer"]: r for r in json.loads((compared / "comparison.json").read_text())}
    assert list(results) == [*TRAINED, "linear", "nlinear", "seasonal", "last_value"]
    for name, result in results.items():
        if name != "last_value":
            assert result["test_mse"] < 0.2 < result["last_value_mse"], name
    for name in ("linear", "nlinear", "seasonal", "last_value"):
        assert results[name]["test_mse"] == pytest.approx(results[name][f"{name}_mse"], rel=1e-4)
        assert results["hybrid"][f"{name}_mse"] == results["linear"][f"{name}_mse"]
    assert results["hybrid"]["gaps"].startswith("11, ")


def test_a_run_ends_with_models_and_baselines_in_one_table(table, tmp_path, capsys):
    """A model after one step of training is worse than the linear map, and the run says so."""
    flags = ["--data", table, *SMALL, "--epochs", 1, "--limit-train", 20, "--season", 8]
    assert call(*flags, "--out", tmp_path / "run") == 0
    *_, last = blocks = capsys.readouterr().out.strip().split("\n\n")
    lines = last.splitlines()
    lines = lines[[line.split()[0] for line in lines].index("mixer") :]  # titles may be in two rows
    assert [line.split()[0] for line in lines[:-1]] == [
        "mixer", "hybrid", "linear", "nlinear", "seasonal", "last_value"
    ]  # fmt: skip
    assert " is best, with a test mse of 0." in lines[-1]
    assert "no model of this library beats it" in lines[-1]
    assert "tide 0." in blocks[-2] or "tide 1." in blocks[-2]


def test_the_files_of_a_run(compared):
    for mixer in ("hybrid", "seasonal"):
        with open(compared / mixer / "horizon.csv", encoding="utf-8") as file:
            steps = list(csv.DictReader(file))
        assert [row["step"] for row in steps] == list("123456")
        result, own = result_of(compared / mixer), "this_model" if mixer == "hybrid" else mixer
        mse = np.mean([float(row[f"{own}_mse"]) for row in steps])
        assert mse == pytest.approx(result["test_mse"], rel=0.02)  # gaps weigh the steps a little
        with open(compared / mixer / "columns.csv", encoding="utf-8") as file:
            columns = {row["column"]: row for row in csv.DictReader(file)}
        assert list(columns) == ["tide", "flow", "still"]
        units = [float(row["mae_in_units"]) for row in columns.values()]
        assert dict(zip(columns, units, strict=True)) == result["test_mae_in_units"]
        assert units[1] > 5 * float(columns["flow"]["mae"])  # its deviation is about 7


def test_pictures_where_matplotlib_is(compared):
    pytest.importorskip("matplotlib")
    for name in ("horizon.png", "forecasts.png"):
        assert (compared / "hybrid" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def answers(monkeypatch, capsys, folder, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    capsys.readouterr()
    status = call("--predict", folder)
    out, error = capsys.readouterr()
    return status, list(csv.reader(out.splitlines())), error


@pytest.mark.parametrize("mixer", [*TRAINED, "linear", "nlinear", "seasonal", "last_value"])
def test_prediction(compared, table, monkeypatch, capsys, mixer):
    """What follows the table, at the hours that follow, in its units."""
    status, rows, _ = answers(monkeypatch, capsys, compared / mixer, table.read_text())
    assert status == 0 and rows[0] == ["date", "tide", "flow", "still"] and len(rows) == 7
    assert rows[1][0] == "2024-01-17 16:00:00" and rows[6][0] == "2024-01-17 21:00:00"
    values = np.array([[float(cell) for cell in row[1:]] for row in rows[1:]])
    if mixer != "last_value":
        t = np.arange(400, 406)
        assert np.abs(values[:, 0] - 3 * np.sin(2 * np.pi * t / 8)).max() < 1.5
        assert np.abs(values[:, 1] - 50 - 10 * np.cos(2 * np.pi * t / 8)).max() < 6
        np.testing.assert_allclose(values[:, 2], 7, atol=0.5)


def test_what_cannot_be_predicted(compared, table, monkeypatch, capsys):
    lines = table.read_text().splitlines()
    few = "\n".join(lines[:20])
    status, _, error = answers(monkeypatch, capsys, compared / "hybrid", few)
    assert status == 2 and "19 rows are too few" in error and "forecasts from 24" in error
    status, _, error = answers(monkeypatch, capsys, compared / "hybrid", "date,tide\n2024,1\n")
    assert status == 2 and "no column 'flow'" in error


def test_resuming_gives_the_same_numbers(table, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    few = ["--data", table, *SMALL, "--columns", "flow", "--layers-pattern", "tssa,attention"]
    assert call(*few, "--epochs", 2, "--out", whole) == 0
    assert call(*few, "--epochs", 1, "--out", parts) == 0
    assert call("--resume", "--out", parts, "--epochs", 2) == 0
    assert result_of(whole)["test_mse"] == result_of(parts)["test_mse"]


def test_limits_count_windows(table, tmp_path):
    out = tmp_path / "run"
    flags = ["--data", table, *SMALL, "--epochs", 1, "--limit-train", 20, "--limit-test", 9]
    assert call(*flags, "--out", out) == 0
    result = result_of(out)
    assert result["train_windows"] == 20 and result["test_windows"] == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "300"], "is too short: its train split has 280 rows"),
        (["--columns", "tide,moon"], "no column 'moon'"),
        (["--season", "30"], "--season 30 is longer than --window 24"),
        (["--tokenizer", "word"], "unrecognized arguments: --tokenizer"),
        (["--max-len", "9"], "unrecognized arguments: --max-len"),
        (["--layers-pattern", "mamba*2"], "'mamba' is no bidirectional mixer"),
        (["--layers-pattern", "tssa", "--layers", "2"], "--layers: --layers-pattern names"),
        (["--mixer", "linear", "--epochs", "2"], "--epochs: --mixer linear is not trained"),
        (["--mixer", "seasonal", "--normalise", "last"], "--mixer seasonal repeats values and"),
        (["--mixer", "nlinear", "--normalise", "none"], "--mixer nlinear subtracts the last"),
        (["--patch", "30"], "patches of 30 every 4 do not cover a window of 24"),
        (["--dataset", "ETTh1"], "--dataset and --data exclude each other"),
    ],
)
def test_wrong_input_is_one_sentence_and_status_2(table, tmp_path, capsys, arguments, message):
    few = SMALL[:4] if {"linear", "nlinear", "seasonal"} & set(arguments) else SMALL
    out = tmp_path / "run"
    assert call("--data", table, *few, *arguments, "--out", out) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not out.exists()


def test_help_has_no_flag_of_other_tasks(capsys):
    with pytest.raises(SystemExit):
        call("--help")
    shown = capsys.readouterr().out
    assert "--tokenizer" not in shown and "--vocab-size" not in shown and "--horizon" in shown


def test_times_after_the_last_year_are_counted_instead():
    times = [f"9999-12-31 2{hour}:00:00" for hour in range(4)]
    assert list(forecast.times_ahead(times, 3)) == [1, 2, 3]
    assert forecast.times_ahead([time.replace("9999", "2000") for time in times], 1) == [
        "2001-01-01 00:00:00"
    ]
