"""The exercises tell right from wrong: every answer is accepted, every mistake refused."""

import inspect
import re
import subprocess
import sys
import types
from pathlib import Path

import exercise_answers
import exercise_checks
import exercises
import pytest

ROOT = Path(__file__).parents[2]


def test_every_exercise_has_a_check_an_answer_and_a_mistake():
    written = [name for name, value in vars(exercises).items() if inspect.isfunction(value)]
    assert written == list(exercise_checks.CHECKS) == list(exercise_answers.RIGHT)
    assert {name for name, _, _ in exercise_answers.WRONG} == set(written)


@pytest.mark.parametrize("name", exercise_checks.CHECKS)
def test_an_exercise_names_files_that_exist_and_takes_what_its_answer_takes(name):
    exercise, answer = getattr(exercises, name), exercise_answers.RIGHT[name]
    assert inspect.signature(exercise) == inspect.signature(answer)
    files, colon, _ = exercise.__doc__.partition(":")
    assert colon and all((ROOT / file.strip()).is_file() for file in files.split(","))


def test_every_stop_of_the_reading_path_has_its_exercise():
    page = (ROOT / "minisum/README.md").read_text(encoding="utf-8")
    stops = dict(re.findall(r"^\| (\d+) \| (.*?) \|", page, re.MULTILINE))
    assert list(stops) == [str(number) for number in range(len(exercise_checks.CHECKS) + 1)]
    for number, name in enumerate(exercise_checks.CHECKS, 1):
        files = getattr(exercises, name).__doc__.partition(":")[0].split(", ")
        assert all(f"[`{file}`]" in stops[str(number)] for file in files), name


@pytest.mark.parametrize("name", exercise_answers.RIGHT)
def test_the_answer_is_accepted(name):
    exercise_checks.accept(name, exercise_answers.RIGHT[name])


@pytest.mark.parametrize(("name", "reason", "mistake"), exercise_answers.WRONG)
def test_a_mistake_is_refused_with_its_reason(name, reason, mistake):
    with pytest.raises(AssertionError, match=reason):
        exercise_checks.accept(name, mistake)


def test_the_report(monkeypatch, capsys):
    def unwritten(*_):
        raise NotImplementedError

    for name in ("what_notices", "cube", "decayed_sum"):
        monkeypatch.setitem(exercise_checks.CHECKS, name, lambda answer: answer(1))
    answers = dict.fromkeys(exercise_checks.CHECKS, unwritten) | exercise_answers.RIGHT
    answers |= {"cube": unwritten, "what_notices": lambda x: x, "decayed_sum": lambda x: x.shape}
    assert exercise_checks.main(types.SimpleNamespace(**answers)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["1", "cube", "not", "written", "yet"]
    assert lines[1].split() == ["2", "quadratic_form", "right"]
    assert "wrong: AttributeError: " in lines[10]
    assert lines[-1] == "10 of 12 are right"


def test_all_right_is_exit_status_0(monkeypatch, capsys):
    monkeypatch.setattr(exercise_checks, "run_test", lambda name: (0, 1))
    assert exercise_checks.main(types.SimpleNamespace(**exercise_answers.RIGHT)) == 0
    assert capsys.readouterr().out.endswith("12 of 12 are right\n")


def test_the_command_runs_from_anywhere(tmp_path):
    """Whatever has been filled in so far: a line each, no traceback."""
    command = [sys.executable, str(ROOT / "tests" / "exercises.py")]
    child = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert child.returncode in (0, 1) and not child.stderr, child.stderr
    assert len(child.stdout.splitlines()) == len(exercise_checks.CHECKS) + 1
