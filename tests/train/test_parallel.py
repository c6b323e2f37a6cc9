"""Several processes train as one does: the arithmetic, in threads that are joined as they are."""

import json
import multiprocessing
import sys
import threading
import types
from itertools import combinations

import numpy as np
import pytest
import tiny_runs
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from ranks import SETTINGS, arrays_of, call, losses, on_host

from minisum.errors import UserError
from train import classifier, loop
from train.run import group as parallel
from train.run.folder import RunFolder
from train.run.report import Report
from train.run.trainer import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny_runs.corpus(tmp_path_factory.mktemp("corpus"), "classifier")


THREAD = threading.local()


@pytest.fixture(autouse=True)
def group_of_thread(monkeypatch):
    alone = parallel.group()
    monkeypatch.setattr(parallel, "group", lambda: getattr(THREAD, "group", alone))


def in_threads(size, work):
    """[work(group of rank 0), ...], each call in a thread of its own but rank 0's."""
    ends = [{} for _ in range(size)]
    for one, other in combinations(range(size), 2):
        ends[one][other], ends[other][one] = multiprocessing.Pipe()
    groups = [parallel.PipeGroup(rank, size, ends[rank]) for rank in range(size)]
    groups = groups if size > 1 else [parallel.ProcessGroup()]
    for group in groups:
        group.neighbours = [{0}]
    results, failures = [None] * size, []

    def run(rank):
        try:
            THREAD.group = groups[rank]
            results[rank] = work(groups[rank])
        except BaseException as error:  # the other ranks would wait for this one for ever
            failures.append(error)
            for end in ends[rank].values():
                end.close()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(1, size)]
    for thread in threads:
        thread.start()
    run(0)
    del THREAD.group
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
        group.reduce_scatter(vector)
        part = vector[group.local_shard(vector)].copy()
        group.all_gather(vector)
        return vector, part

    results = in_threads(size, work)
    assert np.array_equal(np.concatenate([part for _, part in results]), wanted)
    assert all(np.array_equal(vector, wanted) for vector, _ in results)


@given(size=st.integers(1, 5), B=st.integers(1, 9))
def test_parts_of_a_batch_make_the_batch(size, B):
    batch = {"x": np.arange(B * 2).reshape(B, 2), "y": np.arange(B)}

    def work(group):
        part = group.local_batch(batch)
        assert part.keys() == batch.keys() and len(part["x"]) == len(part["y"])
        return group.merge(group.all_gather_object(part["x"] if len(part["x"]) else None))

    assert all(np.array_equal(whole, batch["x"]) for whole in in_threads(size, work))


def train(corpus, folder, **settings):
    """Train in this thread, as the rank of its group; the content of result.json."""
    values = {"data": str(corpus), "width": 8, "max_len": 8, "batch_size": 16, "lr": 0.01}
    values |= {"epochs": 2, "threads": 1, "shard_rows": 1, "validation": 0.2}
    config = classifier.ClassifierConfig(**{**values, **settings})
    task = classifier.Classification.load(config, RunFolder(folder), False)
    return loop.train(task, RunFolder(folder), Report(silent=True))


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
    ranks, threads = (tmp_path_factory.mktemp(name) for name in ("ranks", "threads"))
    first, *others = in_threads(size, lambda group: train(corpus, ranks, **options))
    assert all(other == first for other in others)
    train(corpus, threads, threads=size, **options)
    assert arrays_of(ranks) == arrays_of(threads)
    assert losses(ranks) == pytest.approx(losses(threads), rel=1e-6)


@on_host
def test_a_batch_smaller_than_the_group(corpus, tmp_path):
    """Ranks without an example add nothing and ask nothing of the model."""
    for size in (1, 4):
        (tmp_path / str(size)).mkdir()
        in_threads(size, lambda group: train(corpus, tmp_path / str(group.size), batch_size=2))
    assert losses(tmp_path / "4") == pytest.approx(losses(tmp_path / "1"), rel=1e-5)


@on_host
@pytest.mark.parametrize("task", tiny_runs.TASKS)
def test_every_task_on_three_ranks(tmp_path, monkeypatch, capsys, task):
    """All run the command, rank 0 alone reads, writes and speaks."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    data = tiny_runs.corpus(tmp_path, task)
    assert tiny_runs.train(task, data, tmp_path / "one") == 0
    alone = capsys.readouterr().out
    three = in_threads(3, lambda group: tiny_runs.train(task, data, tmp_path / "three"))
    assert three == [0, 0, 0]
    assert capsys.readouterr().out.count("\n") == alone.count("\n") + 1  # of the processes
    assert json.loads((tmp_path / "three" / "result.json").read_text())["ranks"] == 3
    assert losses(tmp_path / "three") == pytest.approx(losses(tmp_path / "one"), rel=1e-6)


@on_host
def test_replicas_that_differ_end_the_run(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Trainer, "digest", lambda self: self.group.rank)
    arguments = ["--data", corpus, *SETTINGS, "--threads", 1, "--out", tmp_path / "run"]
    assert in_threads(2, lambda group: call(*arguments)) == [2, 2]
    assert capsys.readouterr().err.count("parameters differ") == 1
    assert not (tmp_path / "run" / "last.safetensors").exists()


@on_host
@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_before_the_first_step_is_everyones(failing):
    """What one rank cannot do, a missing file or package, ends all ranks with the same words."""

    def work(group):
        def missing():
            if group.rank == failing:
                raise FileNotFoundError("no such file")

        call = group.on_all_ranks if failing else group.from_rank_0
        with pytest.raises(UserError, match="no such file"):
            call(missing)

    in_threads(3, work)


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
                                 NCCL_FLOAT32=7, NCCL_FLOAT64=8,
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
        try:
            group.connect_gpus()
        except UserError as error:
            return str(error)

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
    group = parallel.PipeGroup(0, 2, {})
    monkeypatch.setattr(parallel, "array_module", lambda x: "cupy")
    group.nccl = sys.modules["cupy"].cuda.nccl.NcclCommunicator()
    group.reduce_scatter(vector)
    group.all_gather(vector)
    assert told == [(), (7, 7, 5, 7, 0, 99)]
    assert group.local_shard(vector) == slice(None)
