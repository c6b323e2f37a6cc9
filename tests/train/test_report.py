"""What a run says of its progress and of its settings."""

import io
import itertools
import re
import sys

import pytest

from train.run import report
from train.run.curves import draw_curves
from train.run.options import Config
from train.run.report import Report, duration, grouped


def test_progress_that_no_terminal_shows(capsys, monkeypatch):
    """A line a minute on standard error, of steps of 25 seconds; none after the last step."""
    clock = itertools.count(100, 25.0)
    monkeypatch.setattr(report.time, "monotonic", lambda: next(clock))
    with Report().bar("epoch 2/9", 9, 2) as advance:
        for loss in (0.5, None, 1.25, 0.5, 0.5, None, 0.5):
            advance(loss)
    assert capsys.readouterr() == ("", (
        "epoch 2/9: step 5 of 9, loss 1.2500, 1 min 40 s left\n"
        "epoch 2/9: step 8 of 9, 25.0 s left\n"
    ))  # fmt: skip


def test_a_bar_on_a_terminal(monkeypatch):
    """Which epoch it is, how far, the loss; and nothing of it is left on the line."""
    pytest.importorskip("tqdm")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with Report().bar("epoch 2/9", 7, 3) as advance:
        advance(0.5)
        shown = sys.stderr.getvalue()
    assert shown.startswith("\repoch 2/9: ") and "| 3/7 [" in shown and "step/s" in shown
    assert sys.stderr.getvalue().rpartition("\n")[2].split("\r")[-2].isspace()


def test_curves_have_titles():
    steps = [{"step": n, "train_loss": 1 / n, "val_loss": 1, "val_macro_f1": 0.5} for n in (1, 2)]
    drawn = draw_curves(steps)
    assert re.findall(r"rotate\(-90\)\"><[^>]*>([^<]*)<", drawn) == ["loss", "macro f1"]
    assert drawn.count(">training step<") == 2 and drawn.count("<polyline") == 3
    assert "<text" not in draw_curves([])


def test_durations_read_well():
    assert [duration(s) for s in (0, 59.94, 65, 3599.4, 7380)] == [
        "0.0 s", "59.9 s", "1 min 05 s", "59 min 59 s", "2 h 03 min",
    ]  # fmt: skip


def test_the_settings_name_one_corpus():
    """With a file of one's own the corpus by name is not read."""
    assert "dataset python_docs" in grouped(Config())["data"]
    assert grouped(Config(data="rows.csv"))["data"].startswith("data rows.csv")


def test_a_long_name_widens_the_whole_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    Report().table({"test calibration error": 0.5, "classes": "alpha beta gamma delta"})
    assert capsys.readouterr().out == (
        "  test calibration error 0.5\n"
        "  classes                alpha beta\n"
        "                         gamma delta\n"
    )


def test_a_curve_that_never_changes_has_one_tick_in_the_middle():
    """And one of a single epoch is seen."""
    scores = [{"epoch": e, "train_loss": 1 / e, "val_accuracy": 1.0} for e in range(1, 4)]
    _, accuracy = draw_curves(scores).split("<svg ")[2:]
    assert re.findall(r'text-anchor="end" [^>]*>(.*?)<', accuracy) == ["1"]
    (points,) = re.findall(r'points="(.*?)"', accuracy)
    heights = {point.partition(",")[2] for point in points.split()}
    assert heights == set(re.findall(r'y1="(.*?)" y2=.* opacity', accuracy)) and len(heights) == 1
    lines = re.findall(r'points="(.*?)"', draw_curves(scores[:1]))
    assert len(lines) == 2 and all(len(set(points.split())) == 2 for points in lines)
