"""The tables of the pages are those of the measurements, and every measurement is whole."""

import json
import re

import pytest

from tests.pages import tables
from tests.pages.__main__ import content, files

FIGURES = {path.relative_to(tables.ROOT).as_posix(): tables.read(path) for path in tables.figures()}
MEASURED = {name: figure for name, figure in FIGURES.items() if "summary" not in figure}


@pytest.mark.parametrize("name", [path.relative_to(tables.ROOT).as_posix() for path in files()])
def test_pages_and_picture_are_what_python_m_tests_pages_writes(name):
    path = tables.ROOT / name
    assert path.read_text(encoding="utf-8") == content(path), "run python -m tests.pages"


@pytest.mark.parametrize("name", MEASURED)
def test_a_measurement_is_whole(name):
    figure = MEASURED[name]
    assert not set(tables.FIELDS) - figure.keys()
    assert figure["what"] and figure["command"] and figure["device"] and figure["versions"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", figure["date"])
    assert figure["commit"] is None or re.fullmatch(r"[0-9a-f]{7,40}", figure["commit"])
    titles = figure["columns"]
    assert all(len(row) == len(titles) for row in figure["rows"])
    assert not {*figure.get("digits", ()), *figure.get("best", ())} - set(titles)


def test_every_measurement_is_on_a_page():
    shown = {
        (page.parent / name).resolve()
        for page in tables.pages()
        for _, name, _ in tables.TABLE.findall(page.read_text(encoding="utf-8"))
    }
    assert shown == set(tables.figures())


def test_a_table(tmp_path):
    """Means and spreads, numbers as they are written, the best in bold, a cell of another table."""
    (tmp_path / "one.json").write_text(
        json.dumps(
            {
                "what": "Errors.",
                "command": ["python -m train.classifier"],
                "date": "2026-01-02",
                "commit": None,
                "device": "an abacus",
                "versions": {"NumPy": "2.0"},
                "columns": ["", "error", "time"],
                "digits": {"error": 2},
                "best": {"error": "min"},
                "rows": [["a", [0.1, 0.2, 0.36], 1.5], ["b", {"mean": 0.3, "sd": 0.1}, 2000]],
                "notes": ["Slow."],
            }
        ).replace("1.5", "1.50")
    )
    assert tables.markdown(tmp_path / "one.json").splitlines() == [
        "Errors.", "",
        "|  | error | time |", "|---|---|---|",
        "| a | **0.22 ± 0.13** | 1.50 |", "| b | 0.3 ± 0.1 | 2,000 |", "",
        "2026-01-02; an abacus; NumPy 2.0; commit not noted:", "",
        "```sh", "python -m train.classifier", "```", "",
        "- Slow.",
    ]  # fmt: skip
    summary = {"summary": "", "columns": ["", "x"], "rows": [["c", "took {one.json#b#time} ms"]]}
    (tmp_path / "two.json").write_text(json.dumps(summary))
    page = "before\n<!-- table: two.json -->\nold\n<!-- end -->\nafter\n"
    filled = tables.filled(tmp_path / "README.md", page)
    assert filled.splitlines()[2:5] == ["|  | x |", "|---|---|", "| c | took 2,000 ms |"]
    assert tables.filled(tmp_path / "README.md", filled) == filled
    assert filled.startswith("before\n") and filled.endswith("<!-- end -->\nafter\n")
