"""Errors against float64, bad numbers named, nothing random behind the back."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numerics
import numpy as np
import pytest
import tiny_runs

from minisum import ops

ROOT = Path(__file__).parents[2]
needs_libraries = pytest.mark.skipif(
    not all(numerics.installed(name) for name in ("safetensors", "tokenizers")),
    reason="a run needs safetensors and tokenizers",
)


def test_the_table_has_every_operation():
    assert sorted(numerics.NAMES) == sorted(ops.__all__)


@pytest.mark.parametrize("name", numerics.NAMES)
def test_errors_against_float64(name):
    forward, gradients = numerics.errors(name, "float32")
    assert forward < 1e-5 and gradients < 1e-5


@pytest.mark.parametrize("name", numerics.NAMES)
def test_no_operation_answers_in_another_type(name):
    """Results and each gradient."""
    forward, gradients = numerics.results(name, "float32", numerics.SIZES | {"n": 70})
    assert {a.dtype.name for a in forward + gradients} == {"float32"}


@needs_libraries
@pytest.mark.parametrize("bad", ["1e300", "inf", "-Infinity"])
def test_a_number_out_of_range_is_refused(capsys, tmp_path, monkeypatch, bad):
    """Among those that training sees: before it begins, with the row or the column named."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    data = tiny_runs.corpus(tmp_path, "forecast")
    lines = data.read_text().splitlines()
    cells = lines[60].split(",")
    lines[60] = ",".join([cells[0], bad, cells[2]])
    data.write_text("\n".join(lines))
    assert tiny_runs.train("forecast", data, tmp_path / "run") == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert "column 'tide'" in errors.lower(), errors


@needs_libraries
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_batch_that_is_not_finite_is_named(capsys, tmp_path, monkeypatch, value):
    """One infinite gradient, as a defect or a broken memory would give it, in the third step."""
    from minisum.optim import Adam

    step, count = Adam.step, iter(range(10**6))

    def poisoned(self, grads, *rate_and_average):
        if next(count) == 2:
            grads.vector[1] = value
        return step(self, grads, *rate_and_average)

    monkeypatch.setattr(Adam, "step", poisoned)
    data = tiny_runs.corpus(tmp_path, "classifier")
    assert tiny_runs.train("classifier", data, tmp_path / "run") == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1, errors
    assert "epoch 1, step" in errors and "training rows" in errors, errors


@needs_libraries
@pytest.mark.parametrize("task", tiny_runs.TASKS)
def test_a_run_leaves_the_global_generator_alone(tmp_path, monkeypatch, task):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    before = np.random.get_state()  # noqa: NPY002 (it is what must not move)
    assert tiny_runs.train(task, tiny_runs.corpus(tmp_path, task), tmp_path / "run") == 0
    after = np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0] and before[2:] == after[2:]
    assert np.array_equal(before[1], after[1])


def sources():
    return [p for part in ("minisum", "train", "data") for p in (ROOT / part).rglob("*.py")]


def test_no_source_draws_from_a_global_generator():
    """np.random.NAME only for what makes a generator of one's own; the module `random` nowhere."""
    allowed = {"default_rng", "Generator", "SeedSequence"}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith(".random"):
                assert node.attr in allowed, f"{path}:{node.lineno}"
            if isinstance(node, ast.Import):
                assert "random" not in [a.name for a in node.names], f"{path}:{node.lineno}"


@needs_libraries
@pytest.mark.parametrize("task", tiny_runs.TASKS)
def test_no_warning_of_any_kind(tmp_path, task):
    """-W error makes every warning fatal, those of deprecation in NumPy and Python too."""
    data = tiny_runs.corpus(tmp_path, task)
    out = tmp_path / "run"
    flags = ["--data", data, *tiny_runs.COMMON, *tiny_runs.SMALL[task], "--out", out]
    command = [sys.executable, "-W", "error", "-m", f"train.{task}"]
    shown = subprocess.run(
        [*command, *map(str, flags)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "MPLCONFIGDIR": str(tmp_path)},
    )  # fmt: skip
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads((out / "result.json").read_text())["task"] == task
