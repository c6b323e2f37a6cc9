"""When a step is recorded, replayed, or run launch by launch: on a GPU that is made of Python.

Its "graph" is a list of functions that are called again. What real CUDA records is asked in
test_cuda_graphs.py.
"""

import contextlib
import gc
import sys
import types
import weakref

import fake_cupy
import numpy as np
import pytest
from conftest import XP

from minisum.fast.cuda import cublas, recording
from minisum.models.base import Model
from minisum.params import Params
from minisum.shards import Shards

pytestmark = pytest.mark.skipif(XP is not np, reason="the stand-in is for machines without a GPU")


class OutOfMemory(RuntimeError):
    """What CUDA says: to CuPy's own pool a reason to give free blocks back."""


class Stream(contextlib.nullcontext):
    recorded = None  # the functions of the graph that is being made

    def __init__(self, non_blocking):
        super().__init__()

    def begin_capture(self):
        Stream.recorded = []

    def end_capture(self):
        functions, Stream.recorded = Stream.recorded, None
        return types.SimpleNamespace(launch=lambda: [function() for function in functions])


class MemoryPool:
    def __init__(self, allocator):
        self.malloc = allocator

    def total_bytes(self):
        return 1024


@pytest.fixture
def device(monkeypatch):
    module = fake_cupy.Module("cupy", np)
    module.pinned = []  # the allocators of the host's memory, in the order of their setting
    module.cuda = types.SimpleNamespace(
        Stream=Stream,
        MemoryPool=MemoryPool,
        using_allocator=contextlib.nullcontext,
        set_pinned_memory_allocator=module.pinned.append,
        MemoryPointer=lambda memory, offset: memory,
        runtime=types.SimpleNamespace(CUDARuntimeError=OutOfMemory),
    )
    module.get_default_pinned_memory_pool = lambda: types.SimpleNamespace(malloc="the usual one")
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(cublas, "prepare", lambda stream: None)
    return module


class Work:
    """loss = Σ x · w / total, the gradient in `grads`; notes how it was called."""

    def __init__(self, device):
        self.device, self.plain, self.captured = device, 0, 0
        self.trouble = []  # errors that the next calls end with

    def __call__(self, params, grads, batch, total):
        if Stream.recorded is None:
            self.plain += 1
        else:
            self.captured += 1
        if self.trouble and (error := self.trouble.pop(0)):
            raise error
        loss = self.device.zeros(())

        def launch():
            grads.vector[...] = 0
            grads["w"][...] = batch["x"].sum(axis=0) / total
            loss[...] = (grads["w"] * params["w"]).sum()

        launch()
        if Stream.recorded is not None:
            Stream.recorded.append(launch)
            loss[...] = np.nan  # nothing has run yet
        return loss


def vectors(device):
    params = Params.from_arrays({"w": np.array([1.0, 2.0])}, device, "float64")
    return params, params.zeros_like()


def assert_right(recorder, work, params, grads, rows=3, seed=0):
    device, x, total = work.device, np.random.default_rng(seed).normal(size=(rows, 2)), seed + 1
    loss = recorder(work, (params, grads), {"x": device.asarray(x)}, total)
    wanted = x.sum(axis=0) / total
    np.testing.assert_allclose(grads["w"].get(), wanted)
    return loss, wanted @ [1, 2]


def test_plain_then_recorded_then_replayed(device):
    """Each batch and number of targets anew; losses that are read when all are done."""
    work = Work(device)
    recorder, found = recording.Recorder(), []
    params, grads = vectors(device)
    for seed in range(4):
        found.append(assert_right(recorder, work, params, grads, seed=seed))
        assert (work.plain, work.captured) == (1, min(seed, 1))
    for loss, wanted in found:
        assert float(loss) == pytest.approx(wanted)
    assert device.pinned[1:] == ["the usual one"]
    with pytest.raises(NotImplementedError, match="copies from the host"):
        device.pinned[0](8)


def test_two_kinds_of_work_on_one_batch(device):
    """Recorded apart, in memory that they share."""
    step, (params, grads) = Work(device), vectors(device)
    recorder, looked = recording.Recorder(), []

    def predict(params, grads, batch, total):
        outputs = device.zeros(3)

        def launch():
            outputs[...] = batch["x"] @ params["w"]

        launch()
        looked.append(Stream.recorded is not None)
        if looked[-1]:
            Stream.recorded.append(launch)
        return outputs

    pools = set()
    for seed in range(4):
        assert_right(recorder, step, params, grads, seed=seed)
        x = np.random.default_rng(seed).normal(size=(3, 2))
        outputs = recorder(predict, (params, grads), {"x": device.asarray(x)}, seed + 1)
        np.testing.assert_allclose(outputs.get(), x @ [1, 2])
        pools.add(recorder.pool)
    assert looked == [False, True] and (step.plain, step.captured) == (1, 1)
    assert len(pools - {None}) == 1


def test_no_more_shapes_than_most(device, monkeypatch):
    monkeypatch.setattr(recording, "MOST", 2)
    work = Work(device)
    recorder, (params, grads) = recording.Recorder(), vectors(device)
    for _ in range(3):
        for rows in (1, 2, 3, 4):
            assert_right(recorder, work, params, grads, rows)
    assert (work.plain, work.captured) == (2 + 3 * 2, 2)


def test_a_recording_keeps_what_it_works_on(device):
    """Freed, its vectors' places would be given to others, and be taken for the old ones."""
    recorder, work = recording.Recorder(), Work(device)
    params, grads = vectors(device)
    for seed in range(2):
        assert_right(recorder, work, params, grads, seed=seed)
    alive = weakref.ref(params.vector), weakref.ref(grads.vector)
    del params, grads
    gc.collect()
    assert all(vector() is not None for vector in alive)
    params, grads = vectors(device)
    assert_right(recorder, work, params, grads)
    assert len(recorder.recordings) == 2


@pytest.mark.parametrize("kind", [float, np.float64, np.asarray])
def test_what_is_not_on_the_device_is_not_replayed(device, kind):
    """The loss of a model without parameters, or what a model answers on the host."""
    recorder, held = recording.Recorder(), vectors(device)

    def work(params, grads, batch):
        return kind(batch["x"].get()[0, 0])

    for seed in range(4):
        batch = {"x": device.asarray(np.full((3, 2), seed))}
        assert float(recorder(work, held, batch)) == seed
    assert not any(recorder.recordings.values())


def test_without_room_to_record_all_runs_launch_by_launch(device):
    work = Work(device)
    recorder, (params, grads) = recording.Recorder(), vectors(device)
    for seed in range(3):
        assert_right(recorder, work, params, grads, rows=3, seed=seed)
    assert recorder.memory() == 1024 and work.captured == 1
    assert_right(recorder, work, params, grads, rows=4)
    work.trouble = [MemoryError("no room to record")]
    for rows in (4, 4, 4, 3, 3, 3, 5, 5, 5):
        assert_right(recorder, work, params, grads, rows)
    assert work.captured == 2 and recorder.memory() == 0
    assert not any(recorder.recordings.values())


def test_without_room_for_a_result_all_runs_launch_by_launch(device):
    work = Work(device)
    recorder, (params, grads) = recording.Recorder(), vectors(device)
    for seed in range(3):
        assert_right(recorder, work, params, grads, seed=seed)

    def full(*arguments):
        raise MemoryError("no room for a copy")

    recorder.recordings = dict.fromkeys(recorder.recordings, full)
    loss, wanted = assert_right(recorder, work, params, grads, seed=4)
    assert float(loss) == pytest.approx(wanted)
    assert recorder.memory() == 0 and not recorder.recordings


def test_recordings_make_room_for_a_plain_step(device):
    work = Work(device)
    recorder, (params, grads) = recording.Recorder(), vectors(device)
    for seed in range(2):
        assert_right(recorder, work, params, grads, seed=seed)
    work.trouble = [MemoryError("a longer batch")]
    assert_right(recorder, work, params, grads, rows=9)
    assert recorder.memory() == 0
    work.trouble = [MemoryError("a batch that is too long by itself")]
    with pytest.raises(MemoryError, match="by itself"):
        assert_right(recorder, work, params, grads, rows=10)


@pytest.mark.parametrize("error", [NotImplementedError("a product"), OutOfMemory("CUDA")])
def test_what_cannot_be_recorded(device, error):
    """One try; the recording is over and the host's memory as it was."""
    work = Work(device)
    recorder, (params, grads) = recording.Recorder(), vectors(device)
    work.trouble = [None, error]
    for seed in range(4):
        assert_right(recorder, work, params, grads, seed=seed)
    assert (work.plain, work.captured) == (4, 1)
    assert Stream.recorded is None and device.pinned[1:] == ["the usual one"]
    assert not recording._recording


def test_a_defect_is_not_hidden(device):
    work = Work(device)
    recorder, (params, grads) = recording.Recorder(), vectors(device)
    work.trouble = [None, TypeError("a defect")]
    assert_right(recorder, work, params, grads)
    with pytest.raises(TypeError, match="a defect"):
        assert_right(recorder, work, params, grads)
    assert Stream.recorded is None and not recording._recording


def test_the_pool_never_hears_that_the_device_is_full(device):
    def full(size):
        raise OutOfMemory("out of memory")

    device.cuda.Memory = full
    with pytest.raises(MemoryError, match="512 bytes"):
        recording._device_memory(512)


def test_several_threads_are_not_recorded():
    """Each has a stream of its own, of which a recording of one would know nothing."""
    assert Shards(Model(), threads=2).recorder is None
    assert Shards(Model()).recorder is not None
