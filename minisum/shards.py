"""One idea for the cache, for threads, for processes and for GPUs: split the batch.

The gradient of a batch is the sum of its shards' gradients. If the shards are small enough, all
arrays of a shard stay in a core's second-level cache, where plain NumPy runs near the speed of its
matrix products; shards on two threads use two cores, since NumPy and BLAS release Python's lock.

Sums are taken in a fixed order: thread i owns shards i, i + T, i + 2T, ... and its own gradient,
and the threads' gradients are added in order. The same seed and thread count give the same bits.
"""

import collections
import contextlib
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from minisum import backend
from minisum.errors import missing
from minisum.params import Params

# Entries of one array of a shard: 512 KB in float32, so that the few arrays that an op works on fit
# in a second-level cache of 2 MB together.
SHARD_SIZE = 131072


class Workers:
    """A fixed number of threads, with BLAS held to one thread while they work.

    count None is the caller's own thread, and BLAS as it is: right for a GPU and whole batches.
    """

    def __init__(self, count=None):
        self.count = count or 1
        self.pool = ThreadPoolExecutor(count) if self.count > 1 else None
        self.blas = _blas_controller() if count else None

    def limit_blas(self, workers):
        """A context in which BLAS leaves the cores to `workers` threads."""
        if self.blas is None:
            return contextlib.nullcontext()
        # Beside several workers BLAS's own threads would compete for the same cores.
        return self.blas.limit(limits=1 if workers > 1 else self.count, user_api="blas")

    def each(self, work, workers=None):
        """[work(0), work(1), ...], one call a thread, for `workers` of them (default: all)."""
        workers = self.count if workers is None else workers
        threads = self.pool.map if workers > 1 else map
        with self.limit_blas(workers):
            return list(threads(work, range(workers)))


def ahead(make, items, threads=1):
    """make(item) for each of `items`, in their order; threads make the next threads + 1 meanwhile.

    What is made must depend on its item alone. An error is raised where its result would stand.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        waiting, items = collections.deque(), iter(items)
        waiting.extend(pool.submit(make, item) for item in itertools.islice(items, threads + 1))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(pool.submit(make, item) for item in itertools.islice(items, 1))
            yield made
    finally:
        # Python may collect a loop that an error has left while it starts another thread, with a
        # lock held that waiting for these would take: a deadlock.
        pool.shutdown(wait=False, cancel_futures=True)


class Shards:
    """Runs a model on batches, shard by shard.

    threads: how many shards are computed at a time (see Workers). rows: examples per shard; None
    leaves a GPU's batch whole and otherwise cuts it to the cache. record: on a GPU, replay a step
    or a prediction as one launch (see minisum.fast.cuda.recording), which takes one thread.
    """

    def __init__(
        self, model: Any, threads: int | None = None, rows: int | None = None, record: bool = True
    ):
        self.model, self.rows, self.record = model, rows, record
        self.workers = Workers(threads)
        self.spare = []

    def prepare(self, batch, xp):
        """`batch`, on the host, with what the model reads on `xp`, but for moving it there."""
        return self.model.prepare(batch, xp, whole=self.rows is None)

    def to_device(self, batch: dict[str, Any], xp: Any) -> dict[str, Any]:
        """`batch`, on the host, as the model reads it on `xp`."""
        return backend.to_device(self.prepare(batch, xp), xp)

    def loss_and_grads(
        self, params: Params, grads: Params, batch: dict[str, Any], total: int | None = None
    ) -> Any:
        """The loss of `batch` (name -> array, leading axis B); its gradient replaces `grads`.

        total: the number of targets (at least 1), if the caller has counted them; counting them on
        a GPU would wait for it. Returns a number of the backend, and reading that waits as well.
        """
        if total is None:
            total = max(1, self.model.count_targets(batch))
        if params.xp is not np and self.recorder:
            step = self.unrecorded.loss_and_grads
            return self.recorder(step, (params, grads), batch, total)
        if not _size(batch):  # of a batch with fewer examples than processes
            grads.vector[...] = 0
            return 0.0
        shards = self._cut(params, batch)
        workers = min(self.workers.count, len(shards))
        while len(self.spare) < workers - 1:
            self.spare.append(params.zeros_like())
        owned = [grads, *self.spare[: workers - 1]]

        def work(worker):
            owned[worker].vector[...] = 0
            loss = 0.0
            for shard in shards[worker::workers]:
                shard_loss, back = self.model.loss(params, shard, total)
                back(owned[worker])
                loss = loss + shard_loss
            return loss

        threads = self.workers.pool.map if workers > 1 else map
        with self.workers.limit_blas(workers):
            losses = list(threads(work, range(workers)))
        self._sum([g.vector for g in owned])
        return sum(losses[1:], losses[0])

    def predict(self, params: Params, batch: dict[str, Any]) -> Any:
        """The model's outputs for `batch`, in its order."""
        if params.xp is not np and self.recorder:
            return self.recorder(self.unrecorded.predict, (params,), batch)
        shards = self._cut(params, batch)
        outputs = [None] * len(shards)
        workers = min(self.workers.count, len(shards))

        def work(worker):
            for i in range(worker, len(shards), workers):
                outputs[i] = self.model.predict(params, shards[i])

        self.workers.each(work, workers)
        if len(outputs) == 1:
            return outputs[0]
        joined = params.xp.concatenate(outputs)
        order = None if params.xp is not np else self.model.order(batch)
        return joined if order is None else joined[np.argsort(order)]

    @functools.cached_property
    def recorder(self):
        """What replays steps on a GPU, or None; made on first use, since a host has none."""
        if not self.record or self.workers.count > 1:
            return None
        from minisum.fast.cuda.recording import Recorder

        return Recorder()

    @functools.cached_property
    def unrecorded(self):
        """The same steps launched one by one, which is what a recorder records."""
        return Shards(self.model, rows=self.rows, record=False)

    def shard_rows(self, batch):
        """Examples per shard on the host: as many as the cache holds, but no thread stays idle."""
        if self.rows is not None:
            return self.rows
        fitting = SHARD_SIZE // max(1, self.model.activation_size(batch))
        return max(1, min(fitting, -(-_size(batch) // self.workers.count)))

    def _cut(self, params, batch):
        """The shards of a batch. On the host the model may put them in order and trim padding."""
        size, on_host = _size(batch), params.xp is np
        if not on_host and self.rows is None:
            return [batch]
        rows = self.shard_rows(batch) if on_host else self.rows
        order = self.model.order(batch) if on_host and rows < size else None
        if order is not None:
            batch = {name: array[order] for name, array in batch.items()}
        shards = [
            {name: array[i : i + rows] for name, array in batch.items()}
            for i in range(0, max(1, size), rows)
        ]
        return [self.model.trim_padding(shard) for shard in shards] if on_host else shards

    def _sum(self, vectors):
        """vectors[0] += vectors[1], then vectors[2], ...; each thread sums its own slice."""
        if len(vectors) == 1:
            return
        cuts = np.linspace(0, len(vectors[0]), self.workers.count + 1).astype(int)

        def work(worker):
            part = slice(cuts[worker], cuts[worker + 1])
            for other in vectors[1:]:
                vectors[0][part] += other[part]

        self.workers.each(work)


def _size(batch):
    return len(next(iter(batch.values())))


def _blas_controller():
    """What holds BLAS to one thread. UserError if threadpoolctl is not installed."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        why = "several threads need threadpoolctl, which keeps BLAS from using them as well"
        raise missing(why, "threadpoolctl") from None
    return ThreadpoolController()
