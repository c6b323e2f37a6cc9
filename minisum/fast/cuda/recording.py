"""Work on a GPU as one launch: its kernels are recorded once and then replayed.

To launch a kernel costs the host some ten microseconds, and a small model's are done sooner: the
GPU waits for Python. A CUDA graph holds the launches of a whole step with the addresses that they
work on, and starts them all at once. It leaves out Python: a recording is of one shape of batch,
and nothing in it may depend on what the arrays hold.
"""

import contextlib

import numpy as np

from minisum.backend import array_module
from minisum.errors import UserError
from minisum.fast.cuda import cublas

# Shapes for which a recording is kept. Steps of yet other shapes run launch by launch.
MOST = 64

_recording = False


def matmul(a, b, out=None, add=False):
    """a @ b, in `out` if given, or with `add` added to it.

    Of bfloat16, too, as `precision.factor` gives it. A GPU's work can be recorded with it, unlike
    CuPy's own product.
    """
    xp = array_module(a)
    if _recording:
        return cublas.product(a, b, out, add)
    if xp is not np and cublas.takes(a, b):
        cublas.prepare(xp.cuda.get_current_stream())
        return cublas.product(a, b, out, add)
    if add:
        out += a @ b
        return out
    return a @ b if out is None else xp.matmul(a, b, out=out)


class Recorder:
    """Calls compute(*vectors, batch, *numbers) -> an array, or replays what it did at that shape.

    vectors: Params, each worked on where it is; others get a recording of their own. The batch
    (name -> array) and the numbers are read anew at each call. The first call for a shape is plain,
    so that kernels are compiled and a rare shape costs nothing; the second is recorded. What cannot
    be recorded goes on launch by launch, and so does all work once there is no room for recordings.
    """

    def __init__(self):
        self.recordings, self.most = {}, MOST
        self.stream = self.pool = None

    def __call__(self, compute, vectors, batch, *numbers):
        shapes = tuple((name, a.shape, a.dtype.char) for name, a in batch.items())
        places = tuple((held.vector.data.ptr, held.dtype.char) for held in vectors)
        known, key = self.recordings, (compute, places, shapes)
        try:
            if key not in known and len(known) < self.most:
                known[key] = None
            elif known.get(key, False) is None:
                known[key] = self._record(compute, vectors, batch, numbers)
            if replay := known.get(key):
                return replay(batch, numbers)
            return compute(*vectors, batch, *numbers)
        except MemoryError:
            if not self.pool:
                raise
        self.most, self.pool = 0, None  # record no more, and hand back that memory
        known.clear()
        return compute(*vectors, batch, *numbers)

    def memory(self):
        """Bytes that the recordings hold on the device."""
        return int(self.pool.total_bytes()) if self.pool else 0

    def _record(self, compute, vectors, batch, numbers):
        """replay(batch, numbers) -> result, or False where the work cannot be recorded."""
        import cupy

        # One pool for all, since they run one after the other, and for no other work.
        self.stream = self.stream or cupy.cuda.Stream(non_blocking=True)
        self.pool = self.pool or cupy.cuda.MemoryPool(_device_memory)
        inputs = {name: array.copy() for name, array in batch.items()}
        scalars = [cupy.ones((), vectors[0].dtype) for _ in numbers]
        try:
            cublas.prepare(self.stream)
            own_memory = cupy.cuda.using_allocator(self.pool.malloc)
            with self.stream, own_memory, _recorded(self.stream) as graph:
                result = compute(*vectors, inputs, *scalars)
        except (UserError, RuntimeError):  # CuPy's and CUDA's refusals are RuntimeErrors
            return False
        if not isinstance(result, cupy.ndarray):  # a replay would give this one again
            return False
        places = [held.vector for held in vectors]

        def replay(batch, numbers, graph=graph[0], places=places):
            """places: not to be given to other arrays while this recording works on them."""
            for name, array in batch.items():
                inputs[name][...] = array
            for scalar, number in zip(scalars, numbers, strict=True):
                scalar.fill(number)
            graph.launch()
            return result.copy()  # the next replay writes to the same place

        return replay


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


def _device_memory(size):
    """`size` bytes of the device. MemoryError if there are none left.

    At CUDA's own error the pool would return its free parts, and with them the recordings' arrays.
    """
    import cupy

    try:
        return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)
    except cupy.cuda.runtime.CUDARuntimeError as reason:
        raise MemoryError(f"no room to record {size} bytes ({reason})") from None


def _refuse(size):
    """For the host's memory that a copy starts from: at a replay something else would be there."""
    raise NotImplementedError("a step that copies from the host cannot be recorded")
