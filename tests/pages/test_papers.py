"""minisum/mixers/papers.md: a line for every paper; every mixer and task named exists."""

import re
from pathlib import Path

from minisum import mixers
from minisum.mixers.linear_attention import MAPS
from train.compare import tasks

PAGE = (Path(__file__).parents[2] / "minisum/mixers/papers.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| \d", line)]


def test_every_paper_has_a_line():
    assert [int(row[0]) for row in ROWS] == list(range(1, 120))
    assert len({row[1] for row in ROWS}) == 119


def test_every_mixer_and_task_exists():
    known = {*mixers.TABLE, *MAPS, *tasks.NAMES, "forecast", "analyze"}
    for number, _, has, *note in ROWS:
        assert set(re.findall(r"`(\w+)`", has)) <= known, number
        assert has != "—" or re.match("(open|out): ", note[0]), number


def test_the_counts_are_those_of_the_lines():
    found = [
        "out" if row[2] == "—" and row[3].startswith("out")
        else "open" if row[2] == "—"
        else "task" if row[2].startswith("task")
        else "row"
        for row in ROWS
    ]  # fmt: skip
    said = re.search(
        r"(\d+) papers have a mixer, (\d+) more a task, (\d+) are open and (\d+)", PAGE
    )
    assert [int(n) for n in said.groups()] == [
        found.count(k) for k in ("row", "task", "open", "out")
    ]
