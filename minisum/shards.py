"""One idea for the cache, for threads, for processes and for GPUs: cut the batch.

The gradient of a batch is the sum of its shards' gradients. Cut small enough, all arrays of a
shard stay in a core's second-level cache, where plain NumPy runs near the speed of its matrix
products; shards on two threads use two cores, since NumPy and BLAS let go of Python's lock.

Sums are taken in a fixed order: thread i owns shards i, i + T, i + 2T, ... and its own gradient,
and the threads' gradients are added in order. The same seed and thread count give the same bits.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from minisum.errors import UserError
from minisum.fast.cuda.recording import Recorder

# Numbers in one array of a shard: 512 KB in float32, so that the few arrays that an op works on fit
# in a second-level cache of 2 MB together.
SHARD_NUMBERS = 131072


class Workers:
    """A fixed number of threads, with BLAS held to one thread while they work.

    count None is the caller's own thread, and BLAS as it is: right for a GPU and whole batches.
    """

    def __init__(self, count=None):
        self.count = count or 1
        self.pool = ThreadPoolExecutor(count) if self.count > 1 else None
        self.blas = _blas_controller() if count else None

    def each(self, work, workers=None):
        """[work(0), work(1), ...], one call a thread, for `workers` of them (default: all)."""
        workers = self.count if workers is None else workers
        if self.blas is None:
            return [work(0)]
        # Beside several workers BLAS's own threads would fight for the same cores.
        with self.blas.limit(limits=1 if workers > 1 else self.count, user_api="blas"):
            if workers <= 1:
                return [work(0)]
            return list(self.pool.map(work, range(workers)))


class Shards:
    """Runs a model on batches, shard by shard.

    threads: how many shards are under way at a time (see Workers). rows: examples a shard; None
    leaves a GPU's batch whole and otherwise cuts it to the cache. record: on a GPU, replay a step
    or a prediction as one launch (see minisum.fast.cuda.recording), which takes one thread.
    """

    def __init__(self, model, threads=None, rows=None, record=True):
        self.model, self.rows = model, rows
        self.workers = Workers(threads)
        self.spare = []
        self.recorder = Recorder() if record and self.workers.count == 1 else None

    def loss_and_grads(self, params, grads, batch, total=None):
        """The loss of `batch` (name -> array, leading axis B); its gradient replaces `grads`.

        total: the number of targets, if the caller has counted them; counting them on a GPU would
        wait for it. Returns a number of the backend, and reading that waits as well.
        """
        total = max(1, self.model.count_targets(batch) if total is None else total)
        return self._run(self._step, (params, grads), batch, total)

    def predict(self, params, batch):
        """The model's outputs for `batch`, in its order."""
        return self._run(self._outputs, (params,), batch)

    def _run(self, compute, vectors, batch, *numbers):
        if self.recorder and vectors[0].xp is not np:
            return self.recorder(compute, vectors, batch, *numbers)
        return compute(*vectors, batch, *numbers)

    def _step(self, params, grads, batch, total):
        pieces = self._cut(params, batch)
        workers = min(self.workers.count, len(pieces))
        while len(self.spare) < workers - 1:
            self.spare.append(params.zeros_like())
        owned = [grads, *self.spare[: workers - 1]]

        def work(worker):
            owned[worker].vector[...] = 0
            loss = 0.0
            for piece in pieces[worker::workers]:
                piece_loss, back = self.model.loss(params, piece, total)
                back(owned[worker])
                loss = loss + piece_loss
            return loss

        losses = self.workers.each(work, workers)
        self._add_up([g.vector for g in owned])
        return sum(losses[1:], losses[0])

    def _outputs(self, params, batch):
        pieces = self._cut(params, batch)
        outputs = [None] * len(pieces)
        workers = min(self.workers.count, len(pieces))

        def work(worker):
            for i in range(worker, len(pieces), workers):
                outputs[i] = self.model.predict(params, pieces[i])

        self.workers.each(work, workers)
        return outputs[0] if len(outputs) == 1 else params.xp.concatenate(outputs)

    def _cut(self, params, batch):
        """The shards of a batch. On the host the model may also trim each of padding."""
        size = len(next(iter(batch.values())))
        on_host = params.xp is np
        rows = self.rows
        if rows is None:
            rows = self._rows(batch, size) if on_host else max(1, size)
        pieces = [
            {name: array[i : i + rows] for name, array in batch.items()}
            for i in range(0, max(1, size), rows)
        ]
        return [self.model.trim_padding(piece) for piece in pieces] if on_host else pieces

    def _rows(self, batch, size):
        """As many examples as the cache holds, but no thread without work."""
        fitting = SHARD_NUMBERS // max(1, self.model.activation_size(batch))
        return max(1, min(fitting, -(-size // self.workers.count)))

    def _add_up(self, vectors):
        """vectors[0] += vectors[1], then vectors[2], ...; each thread adds its own stretch."""
        if len(vectors) == 1:
            return
        cuts = np.linspace(0, len(vectors[0]), self.workers.count + 1).astype(int)

        def work(worker):
            stretch = slice(cuts[worker], cuts[worker + 1])
            for other in vectors[1:]:
                vectors[0][stretch] += other[stretch]

        self.workers.each(work)


def _blas_controller():
    """What holds BLAS to one thread. UserError if threadpoolctl is not installed."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        raise UserError(
            "several threads need threadpoolctl, which keeps BLAS from using them as well: "
            "pip install threadpoolctl"
        ) from None
    return ThreadpoolController()
