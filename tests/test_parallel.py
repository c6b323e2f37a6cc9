"""Several processes train as one does: the arithmetic in threads, the rest with real processes.

What needs MPI is skipped without mpi4py and mpiexec, what needs two GPUs without them.
"""

import contextlib
import importlib.util
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import types
import uuid
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from conftest import XP
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from minisum import checkpoint
from train import classifier, launch, parallel
from train.command_line import main
from train.replica import Replica, follow, together
from train.run_folder import RunFolder

ROOT = Path(__file__).parent.parent
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
            "--validation", "0.2", "--ema", "0.9"]  # fmt: skip

linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads Linux's /proc")
on_host = pytest.mark.skipif(XP is not np, reason="the processes work on the host")
with_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None, reason="no mpi4py or mpiexec"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny_runs.corpus(tmp_path_factory.mktemp("corpus"), "classifier")


@pytest.fixture(scope="module")
def single(corpus, tmp_path_factory):
    """Three epochs in one process, on one thread."""
    out = tmp_path_factory.mktemp("single") / "run"
    assert call("--data", corpus, *SETTINGS, "--epochs", 3, "--threads", 1, "--out", out) == 0
    return out


def call(*arguments):
    return main(classifier.COMMAND, [str(argument) for argument in arguments])


def losses(out):
    """Training and validation losses of all epochs, and the test loss."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    test = json.loads((out / "result.json").read_text())["test_loss"]
    return [*(line["train_loss"] for line in lines), *(line["val_loss"] for line in lines), test]


def arrays_of(out):
    arrays, _ = checkpoint.load(RunFolder(out).last)
    return {name: array.tobytes() for name, array in arrays.items()}


# In threads: pipes join them as well as processes.


def in_threads(size, work):
    """[work(group of rank 0), ...], each call in a thread of its own but rank 0's."""
    ends = [{} for _ in range(size)]
    for one, other in combinations(range(size), 2):
        ends[one][other], ends[other][one] = multiprocessing.Pipe()
    groups = [parallel.Pipes(rank, size, ends[rank]) for rank in range(size)]
    groups = groups if size > 1 else [parallel.Group()]
    results, failures = [None] * size, []

    def run(rank):
        try:
            results[rank] = work(groups[rank])
        except BaseException as error:  # the other ranks would wait for this one for ever
            failures.append(error)
            for end in ends[rank].values():
                end.close()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(1, size)]
    for thread in threads:
        thread.start()
    run(0)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    if failures:
        raise failures[0]
    return results


@given(size=st.integers(1, 5), count=st.integers(0, 40), seed=st.integers(0, 2**32))
def test_sums_are_taken_in_the_order_of_the_ranks(size, count, seed):
    vectors = np.random.default_rng(seed).normal(size=(size, count)).astype(np.float32)
    wanted = vectors[0].copy()
    for vector in vectors[1:]:
        wanted += vector

    def work(group):
        vector = vectors[group.rank].copy()
        group.add_up(vector)
        own = group.own(vector)
        part = vector[own].copy()
        group.spread(vector)
        return vector, part

    results = in_threads(size, work)
    assert np.array_equal(np.concatenate([part for _, part in results]), wanted)
    assert all(np.array_equal(vector, wanted) for vector, _ in results)


@given(size=st.integers(1, 5), B=st.integers(1, 9))
def test_parts_of_a_batch_make_the_batch(size, B):
    batch = {"x": np.arange(B * 2).reshape(B, 2), "y": np.arange(B)}

    def work(group):
        part = group.part(batch)
        assert part.keys() == batch.keys() and len(part["x"]) == len(part["y"])
        return group.whole(group.exchange(part["x"] if len(part["x"]) else None))

    assert all(np.array_equal(whole, batch["x"]) for whole in in_threads(size, work))


def task_of(corpus, folder, **settings):
    values = {"data": str(corpus), "width": 8, "max_len": 8, "batch_size": 16, "lr": 0.01}
    config = classifier.ClassifierConfig(**{**values, "threads": 1, "shard_rows": 1, **settings})
    return classifier.load(config, RunFolder(folder), False)


@on_host
@settings(max_examples=10)
@given(
    size=st.integers(2, 4),
    clip_norm=st.sampled_from([None, 0.5]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    ema=st.sampled_from([0.0, 0.9]),
)
def test_ranks_do_what_threads_do(corpus, tmp_path_factory, size, clip_norm, weight_decay, ema):
    """To the bit: rank r takes the shards that thread r of one process would take."""
    options = {"clip_norm": clip_norm, "weight_decay": weight_decay, "ema": ema}
    folder = tmp_path_factory.mktemp("tokenizer")
    steps = -(-task_of(corpus, folder, **options).train_size // 16)

    def work(group, **more):
        task = task_of(corpus, folder, **options, **more)
        replica = Replica(task, group)
        for epoch in (1, 2):
            for step in range(1, steps + 1):
                replica.step(epoch, step, 0.01)
        replica.complete()
        outputs = []
        task.evaluate("val", lambda batch: outputs.append(replica.predict(batch)) or outputs[-1])
        return replica.losses(), replica.on_host(), outputs

    threaded = work(parallel.Group(), threads=size)
    for found in in_threads(size, work):
        assert found[0] == pytest.approx(threaded[0], rel=1e-6)
        for name, array in threaded[1].items():
            assert np.array_equal(found[1][name], array), name
        assert all(map(np.array_equal, found[2], threaded[2]))


@on_host
def test_a_batch_smaller_than_the_group(corpus, tmp_path):
    """Ranks without an example add nothing and ask nothing of the model."""

    def work(group):
        replica = Replica(task_of(corpus, tmp_path, batch_size=2), group)
        replica.step(1, 1, 0.01)
        replica.complete()
        batch = replica.task.batch("val", np.arange(1))
        return replica.losses(), replica.params.vector.copy(), replica.predict(batch)

    (loss, vector, outputs), *others = in_threads(4, work)
    alone = in_threads(1, work)[0]
    assert loss == pytest.approx(alone[0], rel=1e-6)
    np.testing.assert_allclose(vector, alone[1], rtol=0, atol=1e-6)
    for _, other, predicted in others:
        assert np.array_equal(other, vector) and np.array_equal(predicted, outputs)


@on_host
@pytest.mark.parametrize("task", tiny_runs.TASKS)
def test_every_task_on_three_ranks(tmp_path, monkeypatch, task):
    """Rank 0 alone runs the command; the rest follow, and leave with its status."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    data = tiny_runs.corpus(tmp_path, task)
    assert tiny_runs.train(task, data, tmp_path / "one") == 0

    def work(group):
        if group.rank:
            return follow(group)
        group.neighbours = [{0}]
        monkeypatch.setattr(parallel, "_group", group)
        return tiny_runs.train(task, data, tmp_path / "three")

    assert in_threads(3, work) == [0, 0, 0]
    assert json.loads((tmp_path / "three" / "result.json").read_text())["ranks"] == 3
    assert losses(tmp_path / "three") == pytest.approx(losses(tmp_path / "one"), rel=1e-6)


@on_host
def test_replicas_that_differ_end_the_run(corpus, tmp_path, capsys, monkeypatch):
    def work(group):
        if group.rank:
            return follow(group)
        group.neighbours = [{0}]
        monkeypatch.setattr(parallel, "_group", group)
        return call("--data", corpus, *SETTINGS, "--threads", 1, "--out", tmp_path / "run")

    digests = Replica.digests
    monkeypatch.setattr(
        Replica, "digests", lambda self: [*digests(self)[1:], bytes([self.group.rank])]
    )
    assert in_threads(2, work) == [2, 2]
    assert "parameters differ" in capsys.readouterr().err
    assert not (tmp_path / "run" / "last.safetensors").exists()


# Whether GPUs can be joined is decided before any of them waits for another.


def fake_cupy(monkeypatch, buses, available=True):
    """A CuPy with a GPU for each thread, and an NCCL that notes what it is told."""
    told = []

    class Communicator:
        def __init__(self, *arguments):
            told.append(arguments)

        def allReduce(self, *arguments):
            told.append(arguments)

    nccl = types.SimpleNamespace(available=available, get_unique_id=lambda: (1, 2, 3), NCCL_SUM=0,
                                 NCCL_FLOAT16=6, NCCL_FLOAT32=7, NCCL_FLOAT64=8,
                                 NcclCommunicator=Communicator)  # fmt: skip

    def current():
        name = threading.current_thread().name
        return types.SimpleNamespace(pci_bus_id=buses[int(name)] if name.isdigit() else buses[0])

    stream = types.SimpleNamespace(ptr=99)
    cuda = types.SimpleNamespace(nccl=nccl, Device=current, get_current_stream=lambda: stream)
    for name, module in (("cupy", types.SimpleNamespace(cuda=cuda)), ("cupy.cuda", cuda)):
        monkeypatch.setitem(sys.modules, name, module)
    return told


@on_host
@pytest.mark.parametrize(
    "buses, available, words",
    [("ab", True, None), ("aa", True, "2 processes found 1"), ("ab", False, "nvidia-nccl-cu12")],
)
def test_joining_gpus(monkeypatch, buses, available, words):
    told = fake_cupy(monkeypatch, buses, available)

    def work(group):
        threading.current_thread().name = str(group.rank)
        return group.connect_gpus()

    name = threading.current_thread().name
    try:
        problems = in_threads(2, work)
    finally:
        threading.current_thread().name = name
    assert problems[0] == problems[1]
    if words:
        assert words in problems[0] and not told
    else:
        assert problems[0] is None
        assert sorted(told) == [(2, (1, 2, 3), 0), (2, (1, 2, 3), 1)]


@on_host
def test_one_all_reduce_for_a_vector_on_the_gpu(monkeypatch):
    told = fake_cupy(monkeypatch, "ab")
    vector = types.SimpleNamespace(
        data=types.SimpleNamespace(ptr=7), size=5, dtype=np.dtype(np.float32)
    )
    group = parallel.Pipes(0, 2, {})
    monkeypatch.setattr(parallel, "array_module", lambda x: "cupy")
    group.nccl = sys.modules["cupy"].cuda.nccl.NcclCommunicator()
    group.add_up(vector)
    group.spread(vector)
    assert told == [(), (7, 7, 5, 7, 0, 99)]
    assert group.own(vector) == slice(None)


# With real processes.


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


HOWS = [
    pytest.param("pipes", marks=on_host),
    pytest.param("MPI", marks=[on_host, with_mpi]),
]


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
    assert config["ranks"] == 4 and config["threads"] == max(1, cores() // 4)
    assert losses(tmp_path / "four") == pytest.approx(losses(single), rel=1e-6)


def cores():
    from train import command_line

    return command_line.cores()


@pytest.mark.parametrize("how", HOWS)
def test_what_is_wrong_is_said_once(corpus, tmp_path, how):
    for flags, words in ((["--width", "-1"], "--width -1"), (["--lr", "1e30"], "loss is")):
        child = started(how, 3, "--data", corpus, *SETTINGS, *flags, "--out", tmp_path / "run")
        status, _, errors = done(child)
        assert status == 2 and errors.startswith("error: ") and words in errors
        assert len(errors.splitlines()) == 1


def processes_of(tag):
    """The ranks among the processes whose environment holds `tag`, in the order of their start."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = ((path / name).read_bytes() for name in ("environ", "cmdline"))
        except OSError:
            continue
        words = command.split(b"\0")
        is_rank = words[1:3] == [b"-m", b"train.classifier"] or b"--multiprocessing-fork" in words
        if tag.encode() in environment and is_rank:
            found.append(int(path.name))
    return sorted(found)


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


@linux
@pytest.mark.parametrize("how", HOWS)
def test_killed_again_and_again(corpus, tmp_path, how):
    """Any rank at any moment, resumed on two ranks: the bits of a run without a kill.

    MINISUM_KILLS says how many kills there shall be.
    """
    rng = random.Random(how)
    arguments = ["--data", corpus, *SETTINGS, "--epochs", 6, "--save-every", 0]
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
            wait_for(lambda: not processes_of(tag), 10)  # noqa: B023
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
    assert "Traceback" not in errors
    wait_for(lambda: not processes_of(tag), 10)
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
from train import classifier, replica
from train.command_line import main
step = replica.Replica.step

def failing(self, epoch, step_number, rate):
    if self.group.rank == 1 and epoch == 2:
        raise ZeroDivisionError("on this rank only")
    return step(self, epoch, step_number, rate)

replica.Replica.step = failing
sys.exit(main(classifier.COMMAND))
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
    wait_for(lambda: not processes_of(tag), 10)
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
        with together(group):
            raise error
    assert ended == [2, 2]
    said = capsys.readouterr().err.splitlines()
    assert said == ["error: rank 1 of 2: no memory", "error: rank 1 of 2: 8 GiB"]


def test_a_group_of_one_needs_nothing(monkeypatch):
    monkeypatch.setattr(parallel, "_group", None)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("PMI_SIZE", "1")
    assert (parallel.group().rank, parallel.group().size) == (0, 1)


@pytest.mark.parametrize(
    "flags, words",
    [("0 train.classifier", "at least 1"), ("2 nothing", "nothing"), ("2 no.thing", "no.thing")],
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
