"""What a run prints fits the terminal, without Python's way of writing values."""

import contextlib
import importlib
import json
from importlib.util import find_spec

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import tiny_runs

from minisum import op_table
from train.__main__ import COMMANDS
from train.run import tables
from train.run.report import Report


@pytest.mark.parametrize("task", tiny_runs.TASKS)
@pytest.mark.parametrize("columns", [80, 60])
def test_lines_fit(tmp_path, task, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(tmp_path)
    data = tiny_runs.corpus(tmp_path, task)
    assert tiny_runs.train(task, data.name, "run", "--epochs", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if str(tmp_path) not in line]
    header = lines[: lines.index("")]
    assert len(header) > 5 and max(map(len, header)) <= columns and max(map(len, lines)) <= 80
    table = [line for line in lines if line.startswith("epoch ")]
    assert table and all(len(line) <= max(columns, 64) for line in table)
    text = "\n".join(lines)
    assert "False" not in text and "None" not in text and "('" not in text and "['" not in text


def test_all_mixers_have_one_header_and_one_summary(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tiny_runs.corpus(tmp_path, "causal")
    assert tiny_runs.train("causal", data.name, "run", "--epochs", 1, "--mixer", "all") == 0
    text = capsys.readouterr().out
    assert text.count("train tokens") == 1 and "peak memory" not in text
    assert all(len(line) <= 80 for line in text.splitlines() if str(tmp_path) not in line)
    comparison = json.loads((tmp_path / "run" / "comparison.json").read_text())
    for result in comparison:
        assert f"{result['test_perplexity']:.4f}" in text


def test_the_least_columns_are_left_out_first(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    cells = {"epoch": "1/2", "val loss": "0.1", "val a": "0.1", "val b c": "0.1", "tokens/s": "1"}
    measured, width = ["val loss", "val a", "val b c"], lambda found: sum(found.values()) + 2 * 4
    kept = tables.fitted(cells, measured, ("b_c", "a"))
    assert list(kept) == ["epoch", "val loss", "val a", "val b c", "tokens/s"] and width(kept) <= 40
    monkeypatch.setenv("COLUMNS", "30")
    assert "val a" not in tables.fitted(cells, measured, ("b_c", "a"))
    assert "val b c" not in tables.fitted(cells, measured, ("a",))
    assert {"val a", "val loss"} <= tables.fitted(cells, ["val loss", "val a"], ()).keys()
    lines = tables.titles_of(kept)
    assert lines[0].split() == ["val", "val", "val"] and "b c" in lines[1]


def test_a_report_can_be_silent(capsys):
    report = Report(silent=True)
    report.sample("text")
    report.say("text")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["minisum.ops", *COMMANDS])
def test_help_fits(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.suppress(SystemExit):
        if name == "minisum.ops":
            op_table.main(["--help"])
        elif name in tiny_runs.TASKS:
            tiny_runs.call(name, "--help")
        else:
            package = find_spec(f"train.{name}").submodule_search_locations
            importlib.import_module(f"train.{name}{'.__main__' * bool(package)}").main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert f"{name} " in lines[0] and len(lines) > 6 and max(map(len, lines)) <= 80
