"""One idea for the cache, for threads, for processes and for GPUs: cut the batch.

The gradient of a batch is the sum of its shards' gradients. Cut small enough, all arrays of a
shard stay in a core's second-level cache, where plain NumPy runs near the speed of its matrix
products; shards on two threads use two cores, since NumPy and BLAS let go of Python's lock.

Sums are taken in a fixed order: thread i owns shards i, i + T, i + 2T, ... and its own gradient,
and the threads' gradients are added in order. The same seed and thread count give the same bits.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class Shards:
    """Runs a model on batches, shard by shard.

    rows: examples a shard (None: the whole batch at once, right for a GPU). threads: how many
    shards are under way at a time; BLAS is then held to one thread each.
    """

    def __init__(self, model, threads=1, rows=None):
        self.model, self.threads, self.rows = model, threads, rows
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self.spare = []

    def loss_and_grads(self, params, grads, batch):
        """The loss of `batch` (name -> array, leading axis B); its gradient replaces `grads`.

        Returns a number of the backend; on a GPU reading it waits for the device.
        """
        total = max(1, self.model.weight(batch))
        pieces = self._cut(batch)
        workers = min(self.threads, len(pieces))
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

        losses = self._each(work, workers)
        for other in owned[1:]:
            grads.vector += other.vector
        return sum(losses[1:], losses[0])

    def predict(self, params, batch):
        """The model's outputs for `batch`, in its order."""
        pieces = self._cut(batch)
        outputs = [None] * len(pieces)
        workers = min(self.threads, len(pieces))

        def work(worker):
            for i in range(worker, len(pieces), workers):
                outputs[i] = self.model.predict(params, pieces[i])

        self._each(work, workers)
        return outputs[0] if len(outputs) == 1 else params.xp.concatenate(outputs)

    def _cut(self, batch):
        """Shards of `rows` examples, without the columns that are padding in the whole shard."""
        size = len(next(iter(batch.values())))
        rows = self.rows or max(1, size)
        return [
            {name: array[i : i + rows] for name, array in batch.items()}
            for i in range(0, max(1, size), rows)
        ]

    def _each(self, work, workers):
        if workers == 1:
            return [work(0)]
        with _one_blas_thread():
            return list(self.pool.map(work, range(workers)))


def _one_blas_thread():
    """BLAS's own threads would fight with ours for the same cores."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(1, user_api="blas")
