"""Runs of several processes, for the tests of them: how they are begun, watched and judged."""

import contextlib
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from conftest import XP

from minisum import checkpoint
from train import classifier
from train.command_line import main
from train.run.children import GRACE
from train.run.folder import RunFolder

ROOT = Path(__file__).parents[2]
SCRIPTS = sysconfig.get_path("scripts")
MPIEXEC = shutil.which("mpiexec", path=f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}")
LAUNCH = [sys.executable, "-m", "train.launch", "--ranks"]
OPEN_MPI = {  # what it asks of tests: to run as root, and more ranks than cores
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
SETTINGS = ["--width", "8", "--max-len", "8", "--batch-size", "16", "--lr", "0.01",
            "--validation", "0.2", "--ema", "0.9", "--patience", "0", "--keep-state"]  # fmt: skip

linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads Linux's /proc")
on_host = pytest.mark.skipif(XP is not np, reason="the processes work on the host")
with_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None, reason="no mpi4py or mpiexec"
)
AT_LAST = GRACE + 5  # seconds until nothing is left of a job whose parent or sibling is gone
HOWS = [
    pytest.param("pipes", marks=on_host),
    pytest.param("MPI", marks=[on_host, with_mpi]),
]


def call(*arguments):
    return main(classifier.Classification, [str(argument) for argument in arguments])


def losses(out):
    """Training and validation losses of all epochs, and the test loss."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    test = json.loads((out / "result.json").read_text())["test_loss"]
    return [*(line["train_loss"] for line in lines), *(line["val_loss"] for line in lines), test]


def arrays_of(out):
    arrays, _ = checkpoint.load(RunFolder(out).last)
    return {name: array.tobytes() for name, array in arrays.items()}


def started(how, ranks, *arguments, module="train.classifier", **environment):
    """The command on `ranks` processes, joined by MPI or by pipes."""
    if how == "MPI":
        command = [MPIEXEC, "-n", str(ranks), sys.executable, "-m", module]
    else:
        command = [*LAUNCH, str(ranks), module]
    return subprocess.Popen(
        [*command, *(str(argument) for argument in arguments)],
        cwd=ROOT,
        env={**os.environ, **OPEN_MPI, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def done(child):
    """(status, standard output, standard error) once it has ended."""
    try:
        output, errors = child.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        child.kill()
        raise
    return child.returncode, output, errors


def tagged(tag):
    """The processes whose environment holds `tag`, in the order of their start.

    One that has ended has no environment left. Process ids begin again at the smallest one day.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if tag.encode() in (path / "environ").read_bytes():
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                found.append((int(fields[19]), int(path.name)))
    return [process for _, process in sorted(found)]


def processes_of(tag):
    """The ranks among them."""

    def is_rank(process):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            own = words[1:3] == [b"-m", b"train.classifier"]
            return own or b"--multiprocessing-fork" in words
        return False

    return list(filter(is_rank, tagged(tag)))


def begun(how, ranks, corpus, out):
    """A run that saves at every step and would never end, and its ranks, once it has saved."""
    tag = f"MINISUM_RUN={uuid.uuid4()}"
    arguments = ["--data", corpus, *SETTINGS, "--save-every", 0, "--epochs", 10**6, "--out", out]
    child = started(how, ranks, *arguments, **dict([tag.split("=")]))
    wait_for(lambda: (out / "last.safetensors").exists() or child.poll() is not None)
    time.sleep(random.Random(str(out)).uniform(0, 0.1))
    return child, tag


def wait_for(happened, seconds=30):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def epoch_of(out):
    """At work on which epoch the newest checkpoint is."""
    _, meta = RunFolder(out).newest_state(warn=pytest.fail)
    return meta["position"]["epoch"]


def goes_on(out):
    """Resume in this process, to the end of the next epoch."""
    epochs = epoch_of(out) + 1
    assert call("--resume", "--out", out, "--epochs", epochs) == 0
    assert json.loads((out / "result.json").read_text())["epochs"] == epochs
