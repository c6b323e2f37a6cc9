"""Mistakes made on purpose in the backward passes, a few drawn from all: the tests notice each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import XP

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each mutant is a forked process")
@pytest.mark.skipif(XP.__name__ != "numpy", reason="a GPU cannot be used after a fork")
def test_a_few_mistakes_are_noticed(tmp_path):
    """In an operation of each kind and their faster forms, and in a mixer."""
    files = ["ops/norms", "fast/host_norms", "ops/delta", "fast/chunked_delta_rule", "mixers/tssa"]
    command = [sys.executable, "-m", "tests.mutants", *(f"minisum/{name}.py" for name in files),
               "--sample", "12", "--examples", "4", "--jobs", "2",
               "--results", tmp_path / "mutants.json"]  # fmt: skip
    # These notice almost all. What is left must be noticed by some other test.
    likely = ["-k", "(gradient or survives or equals) and (norm or delta or tssa)"]
    for tests in (likely, []):
        run = subprocess.run([*command, *tests], cwd=ROOT, capture_output=True, text=True)
        if run.returncode == 0:
            break
    assert run.returncode == 0, run.stdout + run.stderr
    assert "12 of 12 mutants noticed" in run.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each mutant is a forked process")
@pytest.mark.skipif(XP.__name__ != "numpy", reason="a GPU cannot be used after a fork")
def test_tests_that_cannot_run_in_a_copy_notice_nothing(tmp_path):
    """None is chosen here, and that is no failure of one."""
    command = [sys.executable, "-m", "tests.mutants", "train/run/lines.py", "--forward", "--copy",
               "--tests", "train/test_published_numbers.py", "-k", "nothing", "--sample", "1",
               "--results", tmp_path / "mutants.json"]  # fmt: skip
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.endswith("without any mistake: (status 5)\n")
