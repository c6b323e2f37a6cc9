"""A training step on a GPU as one launch: its kernels are recorded once and then replayed.

To launch a kernel costs the host some ten microseconds, and a small model's kernels are done
sooner than that: the GPU waits for Python. A CUDA graph holds the launches of a whole step with
the addresses that they work on, and starts them all at once. What it leaves out is Python: so a
recording is of one shape of batch, and nothing in it may depend on what the arrays hold.
"""

import contextlib

from minisum import cublas
from minisum.backend import array_module
from minisum.errors import UserError

# Shapes for which a recording is kept. Steps of yet other shapes run launch by launch.
MOST = 64

_recording = False


def matmul(a, b, out=None):
    """a @ b. A GPU's work can be recorded with it, which with CuPy's own product it cannot."""
    if _recording:
        return cublas.product(a, b, out)
    return a @ b if out is None else array_module(a).matmul(a, b, out=out)


class Recorder:
    """Calls compute(params, grads, batch, total) -> loss, or replays what it did at that shape.

    The first call for a shape is plain, so that kernels are compiled and a rare shape costs
    nothing; the second is recorded. Work that cannot be recorded goes on launch by launch.
    """

    def __init__(self, compute):
        self.compute, self.recordings = compute, {}
        self.stream = self.pool = None

    def __call__(self, params, grads, batch, total):
        shapes = tuple((name, a.shape, a.dtype.char) for name, a in batch.items())
        key = (params.vector.data.ptr, grads.vector.data.ptr, shapes)
        if key not in self.recordings:
            if len(self.recordings) < MOST:
                self.recordings[key] = None
            return self.compute(params, grads, batch, total)
        if self.recordings[key] is None:
            self.recordings[key] = self._record(params, grads, batch)
        if not self.recordings[key]:
            return self.compute(params, grads, batch, total)
        return self.recordings[key].replay(batch, total)

    def _record(self, params, grads, batch):
        """A Recording, or False where the work cannot be recorded."""
        import cupy

        # All recordings use one pool: they run one after the other, so memory that one has done
        # with is free for the next. No other work gets it.
        self.stream = self.stream or cupy.cuda.Stream(non_blocking=True)
        self.pool = self.pool or cupy.cuda.MemoryPool()
        inputs = {name: array.copy() for name, array in batch.items()}
        total = cupy.ones((), params.dtype)
        try:
            cublas.prepare(self.stream)
            own_memory = cupy.cuda.using_allocator(self.pool.malloc)
            with self.stream, own_memory, _recorded(self.stream) as graph:
                loss = self.compute(params, grads, inputs, total)
        except (UserError, RuntimeError):  # CuPy's and CUDA's refusals are RuntimeErrors
            return False
        return Recording(graph[0], inputs, total, loss)


class Recording:
    """A graph, the arrays that it reads the batch and the number of targets from, and its loss."""

    def __init__(self, graph, inputs, total, loss):
        self.graph, self.inputs, self.total, self.loss = graph, inputs, total, loss

    def replay(self, batch, total):
        for name, array in batch.items():
            self.inputs[name][...] = array
        self.total.fill(total)
        self.graph.launch()
        return self.loss.copy()  # the next replay writes to the same place


@contextlib.contextmanager
def _recorded(stream):
    """What is launched in here on `stream` is recorded, not run. Gives a list for the graph."""
    global _recording
    import cupy

    graph = []
    cupy.cuda.set_pinned_memory_allocator(_refuse)
    stream.begin_capture()
    _recording = True
    try:
        yield graph
    except BaseException:
        with contextlib.suppress(Exception):  # what was wrong is in the error on its way
            stream.end_capture()
        raise
    finally:
        _recording = False
        cupy.cuda.set_pinned_memory_allocator(cupy.get_default_pinned_memory_pool().malloc)
    graph.append(stream.end_capture())


def _refuse(size):
    """Stands for the host's memory that copies to the device start from.

    A replay would copy again from a place where something else is by then.
    """
    raise NotImplementedError("a step that copies from the host cannot be recorded")
