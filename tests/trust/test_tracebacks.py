"""No command ends in a traceback: full devices, -OO, odd variables, huge numbers, packages, NaN."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from ranks import linux

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from minisum import checkpoint
from train import launch
from train.analyze import __main__ as analyze
from train.compare import __main__ as compare
from train.run import group as process_group

ROOT = Path(__file__).parents[2]
COMPARE = ["--steps", "1", "--width", "8", "--seeds", "1", "--heads", "2", "--length", "8",
           "--vocab-size", "16", "--pairs", "2", "--mixers", "tssa"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """task -> (data, a run of two epochs, one of three)."""
    return {
        task: tiny_runs.trained(tmp_path_factory.mktemp(task), task) for task in tiny_runs.TASKS
    }


def lines_of(runs, out):
    """name -> (command, standard input)."""
    predict = {
        f"predict {task}": ([f"train.{task}", "--predict", run], data)
        for task, (data, run, _) in runs.items()
        if task != "causal"
    }
    causal, classifier = runs["causal"][1], runs["classifier"][1]
    return predict | {
        "generate": (["train.causal", "--generate", "a", "--out", causal], None),
        "analyze words": (["train.analyze", classifier, "--out", out / "words"], None),
        "analyze layers": (["train.analyze", causal, "--out", out / "layers"], None),
        "compare": (["train.compare", *COMPARE, "--out", out / "compare"], None),
        "resume": (["train.classifier", "--resume", "--out", classifier], None),
        "reproduce": (["train.reproduce", "--list", "--quick", "--out", out / "re"], None),
        "ops": (["minisum.ops", "relu"], None),
        "bench": (["train.bench", "--help"], None),
    }


NAMES = [f"predict {task}" for task in tiny_runs.TASKS if task != "causal"] + [
    "generate", "analyze words", "analyze layers", "compare", "resume", "reproduce", "ops", "bench",
]  # fmt: skip


def ended(command, given, *python, stdout=subprocess.DEVNULL, **variables):
    """(status, standard error) of a command."""
    with open(given or os.devnull, "rb") as stdin:
        shown = subprocess.run(
            [sys.executable, *python, "-m", *map(str, command)],
            cwd=ROOT, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120,
            env=os.environ | variables,
        )  # fmt: skip
    assert "Traceback" not in shown.stderr and "Exception ignored" not in shown.stderr
    return shown.returncode, shown.stderr


@linux
@pytest.mark.parametrize("name", NAMES)
def test_output_to_a_full_device(runs, tmp_path, name):
    command, given = lines_of(runs, tmp_path)[name]
    with open("/dev/full", "wb") as full:
        status, errors = ended(command, given, stdout=full)
    assert status == 0 or (status == 2 and "No space left on device" in errors)


@pytest.mark.parametrize("name", NAMES)
def test_without_docstrings_and_asserts(runs, tmp_path, name):
    command, given = lines_of(runs, tmp_path)[name]
    status, errors = ended(command, given, "-OO")
    assert status == 0 or (name == "ops" and status == 2 and "-OO leaves out" in errors)


@linux
def test_the_table_of_ops_into_a_pipe_that_closes():
    shown = subprocess.run(
        f"'{sys.executable}' -m minisum.ops | head -1", shell=True, cwd=ROOT, capture_output=True
    )
    assert shown.stdout.count(b"\n") == 1 and shown.stderr == b""


@pytest.mark.parametrize("size", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
@pytest.mark.parametrize("value", ["abc", "", "2.5", "9" * 5000])
def test_a_launchers_variable_that_is_no_number(capsys, monkeypatch, size, value):
    monkeypatch.setattr(process_group, "_group", None)
    monkeypatch.setenv(size, value)
    assert tiny_runs.call("classifier", "--help") == 2
    assert f"error: the variable {size} is no number" in capsys.readouterr().err


@pytest.mark.parametrize("digits", [19, 309, 4000])
@pytest.mark.parametrize("name", ["epochs", "warmup", "seed", "limit-train", "patience"])
def test_numbers_of_many_digits(capsys, runs, tmp_path, name, digits):
    data, _, _ = runs["classifier"]
    flags = [f"--{name}", "9" * digits]
    assert tiny_runs.train("classifier", data, tmp_path / "run", *flags) == 2
    assert f"--{name}: a number below 2**63 is needed" in capsys.readouterr().err


def test_numbers_of_many_digits_for_a_comparison(capsys, tmp_path):
    assert compare.main([*COMPARE, "--steps", "9" * 309, "--out", str(tmp_path / "a")]) == 2
    assert "--steps: a number below 2**63" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["data", "data.sets", "json.tool.x", "train.run"])
def test_a_package_is_no_module(capsys, module):
    with pytest.raises(SystemExit):
        launch.main(["--ranks", "1", module])
    assert f"no module {module}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        launch.main(["--ranks", "1", "train.clasifier"])
    assert "(did you mean 'train.classifier'?)" in capsys.readouterr().err
    assert launch.is_module("train.compare") and launch.is_module("train.classifier")


@pytest.mark.parametrize("task", ["classifier", "causal"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(capsys, runs, tmp_path, task, value):
    run = tmp_path / "run"
    shutil.copytree(runs[task][1], run)
    arrays, meta = checkpoint.load(run / "best.safetensors")
    name = sorted(arrays)[0]
    arrays[name] = arrays[name].copy()
    arrays[name].flat[0] = value
    checkpoint.save(run / "best.safetensors", arrays, meta)
    assert analyze.main([str(run), "--out", str(tmp_path / "out")]) == 2
    assert "holds numbers that are not finite" in capsys.readouterr().err


def test_analyze_writes_whole_files(runs, tmp_path, monkeypatch):
    """Stopped at its last renaming, it leaves the old page as it was and no half of another."""
    out, run = tmp_path / "out", str(runs["classifier"][1])
    assert analyze.main([run, "--out", str(out), "--texts", "1"]) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}

    def stop(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    assert analyze.main([run, "--out", str(out), "--texts", "3"]) == 130
    assert {path: path.read_bytes() for path in out.iterdir()} == before


INTERRUPTING = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, *more):
        if name == "MODULE":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize(
    "command, module",
    [
        ("train.classifier", "numpy._core._multiarray_umath"),
        ("minisum.ops", "minisum.op_table"),  # NumPy comes before it, with the library
    ],
)
def test_ctrl_c_during_imports_shows_no_traceback(tmp_path, command, module):
    """While a module is being looked for."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING.replace("MODULE", module))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    status, errors = ended([command, "--help"], None, PYTHONPATH=path)
    assert status in (-signal.SIGINT, 130) and errors in ("", "interrupted\n")
