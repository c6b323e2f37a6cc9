"""Several processes train as one does: with real ones, killed and stopped ones among them.

What needs MPI is skipped without mpi4py and mpiexec, what needs two GPUs without them.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
import types
import uuid

import numpy as np
import pytest
import tiny_runs
from conftest import XP

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from ranks import (
    AT_LAST,
    HOWS,
    ROOT,
    SETTINGS,
    arrays_of,
    begun,
    call,
    done,
    epoch_of,
    goes_on,
    linux,
    losses,
    on_host,
    processes_of,
    started,
    wait_for,
)

from train import command_line, launch
from train.run import group as parallel


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny_runs.corpus(tmp_path_factory.mktemp("corpus"), "classifier")


@pytest.fixture(scope="module")
def single(corpus, tmp_path_factory):
    """Three epochs in one process, on one thread."""
    out = tmp_path_factory.mktemp("single") / "run"
    assert call("--data", corpus, *SETTINGS, "--epochs", 3, "--threads", 1, "--out", out) == 0
    return out


@pytest.mark.parametrize("how", HOWS)
def test_two_processes_are_two_threads(corpus, tmp_path, how):
    """To the bit, and a second time as well. Rank 0 alone speaks."""
    arguments = ["--data", corpus, *SETTINGS, "--epochs", 2, "--shard-rows", 1]
    assert call(*arguments, "--threads", 2, "--out", tmp_path / "threads") == 0
    for name in ("first", "second"):
        child = started(how, 2, *arguments, "--threads", 1, "--out", tmp_path / name)
        status, output, errors = done(child)
        assert (status, errors) == (0, ""), errors
        assert output.count("minisum ") == 1 and f"2, joined by {how}" in output
        assert arrays_of(tmp_path / name) == arrays_of(tmp_path / "threads")
    found = losses(tmp_path / "first"), losses(tmp_path / "threads")
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert losses(tmp_path / "second") == found[0]


@pytest.mark.parametrize("how", HOWS)
def test_four_processes_are_one_process(corpus, single, tmp_path, how):
    arguments = ["--data", corpus, *SETTINGS, "--epochs", 3]
    status, _, errors = done(started(how, 4, *arguments, "--out", tmp_path / "four"))
    assert (status, errors) == (0, "")
    config = json.loads((tmp_path / "four" / "config.json").read_text())
    assert config["ranks"] == 4 and config["threads"] == max(1, command_line.cores() // 4)
    assert losses(tmp_path / "four") == pytest.approx(losses(single), rel=1e-6)


@pytest.mark.parametrize("how", HOWS)
def test_what_is_wrong_is_said_once(corpus, tmp_path, how):
    for flags, words in ((["--width", "-1"], "--width -1"), (["--lr", "1e30"], "loss is")):
        child = started(how, 3, "--data", corpus, *SETTINGS, *flags, "--out", tmp_path / "run")
        status, _, errors = done(child)
        assert status == 2 and errors.startswith("error: ") and words in errors
        assert len(errors.splitlines()) == 1


@linux
@pytest.mark.parametrize("how", HOWS)
def test_killed_again_and_again(corpus, tmp_path, how):
    """Any rank at any moment, resumed on two ranks: the bits of a run without a kill.

    MINISUM_KILLS says how many kills there shall be.
    """
    rng = random.Random(how)
    arguments = ["--data", corpus, *SETTINGS, "--epochs", 3, "--save-every", 0]
    assert done(started(how, 2, *arguments, "--out", tmp_path / "straight"))[0] == 0
    kills = runs = 0
    while kills < int(os.environ.get("MINISUM_KILLS", "2")):
        out = tmp_path / str(runs)
        runs += 1
        while not (out / "result.json").exists():
            tag = str(uuid.uuid4())
            again = ["--resume"] if (out / "config.json").exists() else arguments
            child = started(how, 2, *again, "--out", out, MINISUM_RUN=tag)
            wait_for(lambda: (out / ".lock").exists() or child.poll() is not None)  # noqa: B023
            time.sleep(rng.uniform(0.0, 0.3))
            if victims := processes_of(tag):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(victims), signal.SIGKILL)
                    kills += 1
            assert "Traceback" not in done(child)[2]
            wait_for(lambda: not processes_of(tag), AT_LAST)  # noqa: B023
        assert arrays_of(out) == arrays_of(tmp_path / "straight"), f"run {runs}"
        assert losses(out) == losses(tmp_path / "straight")
        assert not list(out.glob("*.tmp"))


@linux
@pytest.mark.parametrize("how", HOWS)
def test_a_killed_rank_ends_the_job(corpus, tmp_path, capsys, how):
    """With a message; the checkpoint goes on, here in a single process."""
    child, tag = begun(how, 2, corpus, tmp_path / "run")
    os.kill(processes_of(tag)[1], signal.SIGKILL)
    status, output, errors = done(child)
    assert status not in (0, None) and (output + errors).strip()
    if how == "pipes":
        assert errors.startswith("error: rank 1 was ended by SIGKILL, and the run with it")
    assert "Traceback" not in errors
    wait_for(lambda: not processes_of(tag), AT_LAST)
    goes_on(tmp_path / "run")
    assert "2 processes" in capsys.readouterr().err


@linux
@pytest.mark.parametrize(
    "number, to", [(signal.SIGINT, "launcher"), (signal.SIGTERM, "launcher"), (signal.SIGTERM, 1)]
)
@pytest.mark.parametrize("how", HOWS)
def test_a_stopped_job_saves(corpus, tmp_path, how, number, to):
    """Whichever process is asked. Going on with three ranks works as well."""
    out = tmp_path / "run"
    child, tag = begun(how, 2, corpus, out)
    os.kill(child.pid if to == "launcher" else processes_of(tag)[to], number)
    status, _, errors = done(child)
    assert status == 128 + number, errors
    assert "the state is saved; to go on: " in errors and "Traceback" not in errors
    assert ("mpiexec -n 2 " if how == "MPI" else "train.launch --ranks 2 ") in errors
    epochs = epoch_of(out) + 1
    more = ["--resume", "--out", out, "--epochs", epochs, "--save-every", 60]
    status, _, errors = done(started(how, 3, *more))
    assert status == 0 and "1 thread in each of 3 processes" in errors
    assert len((out / "metrics.jsonl").read_text().splitlines()) == epochs


FAILING = """
import sys
from train import classifier
from train.command_line import main
from train.run.trainer import Trainer
gather = Trainer.gather_params

def failing(self):
    if self.group.rank == 1 and self.adam.steps == 7:
        raise ZeroDivisionError("on this rank only")
    gather(self)

Trainer.gather_params = failing
sys.exit(main(classifier.Classification))
"""


@pytest.mark.parametrize("how", HOWS)
def test_an_exception_on_one_rank_ends_all(corpus, tmp_path, how, capsys):
    (tmp_path / "failing.py").write_text(FAILING)
    arguments = ["--data", corpus, *SETTINGS, "--epochs", 3, "--out", tmp_path / "run"]
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    status, _, errors = done(started(how, 2, *arguments, module="failing", PYTHONPATH=path))
    assert status == 1 and errors.count("ZeroDivisionError: on this rank only") == 1, errors
    assert errors.count("Traceback") == 1
    goes_on(tmp_path / "run")


@on_host
@linux
def test_ranks_do_not_outlive_their_launcher(corpus, tmp_path):
    child, tag = begun("pipes", 2, corpus, tmp_path / "run")
    child.kill()
    child.communicate(timeout=10)
    wait_for(lambda: not processes_of(tag), AT_LAST)
    goes_on(tmp_path / "run")


@pytest.mark.parametrize("variable", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_started_together_without_mpi4py(capsys, monkeypatch, variable):
    monkeypatch.setattr(parallel, "_group", None)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv(variable, "2")
    assert call("--help") == 2
    error = capsys.readouterr().err
    assert "2 processes" in error and "pip install mpi4py" in error
    assert len(error.splitlines()) == 1


def test_a_rank_without_memory_says_so(capsys):
    """NumPy's MemoryErrors have words, those of Python have none."""
    ended = []
    group = types.SimpleNamespace(rank=1, size=2, abort=ended.append)
    for error in (MemoryError(), MemoryError("8 GiB")):
        with command_line.run_with_exit_status() as outcome:
            outcome.group = group
            raise error
    assert ended == [2, 2]
    said = capsys.readouterr().err.splitlines()
    assert said[1] == "error: rank 1 of 2: not enough memory for a run of this size (8 GiB)"
    assert len(said) == 2


def test_a_group_of_one_needs_nothing(monkeypatch):
    monkeypatch.setattr(parallel, "_group", None)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("PMI_SIZE", "1")
    assert (parallel.group().rank, parallel.group().size) == (0, 1)


@pytest.mark.parametrize(
    "flags, words",
    [
        ("0 train.classifier", "from 1 to 64"),
        ("65 train.causal", "from 1 to 64"),
        ("2 nothing", "nothing"),
        ("2 no.thing", "no.thing"),
    ],
)
def test_what_the_launcher_refuses(capsys, flags, words):
    with pytest.raises(SystemExit) as stop:
        launch.main(["--ranks", *flags.split()])
    assert stop.value.code == 2 and words in capsys.readouterr().err


def gpus():
    return 0 if XP is np else XP.cuda.runtime.getDeviceCount()


@pytest.mark.skipif(gpus() < 2, reason="needs MINISUM_TEST_BACKEND=cupy and two GPUs")
def test_two_gpus_are_one(corpus, tmp_path):
    """The same losses; a GPU adds with atomics, so not the same bits."""
    arguments = ["--data", corpus, *SETTINGS, "--epochs", 3, "--backend", "cupy"]
    for ranks in (1, 2):
        child = started("pipes", ranks, *arguments, "--out", tmp_path / str(ranks))
        status, output, errors = done(child)
        assert (status, errors) == (0, "")
        assert ("2, joined by pipes and NCCL" in output) == (ranks == 2)
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-5)


@pytest.mark.skipif(gpus() < 1, reason="needs MINISUM_TEST_BACKEND=cupy")
def test_more_processes_than_gpus(corpus, tmp_path):
    arguments = ["--data", corpus, *SETTINGS, "--backend", "cupy", "--out", tmp_path / "run"]
    status, _, errors = done(started("pipes", gpus() + 1, *arguments))
    assert status == 2 and "needs a GPU for each process" in errors, errors
    assert len(errors.splitlines()) == 1
