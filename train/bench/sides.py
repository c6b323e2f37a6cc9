"""What the benchmark times: a workload of fixed sizes, and our side of it (see train.bench)."""

import dataclasses
import operator
from functools import cached_property

import numpy as np

from minisum import backend
from minisum.fast.cuda.recording import matmul
from minisum.mixers import parse_pattern
from minisum.models import classifier
from minisum.models.language_model import LanguageModel
from minisum.models.long_document import LongDocumentClassifier
from minisum.optim import Adam
from minisum.params import Params, flatten
from minisum.shards import Shards

# Small: a batch learned by heart in a hundred repetitions would leave gradients below
# 1e-38, with which processors are several times as slow.
LEARNING_RATE = 1e-5
# Tokens from which a text is cut into chunks: one text alone would keep only one thread busy.
LONG = 16_384
# Positions of the long-document model where PyTorch, which needs one for each token, is absent.
PERIOD = 256
# Numbers in the largest array of a product that is timed alone; larger ones are done in parts.
LARGEST = 2**24


@dataclasses.dataclass(frozen=True)
class Workload:
    """Sizes of a model and of its batch. head_width: attention's, width/heads by default."""

    model: str  # "summation", "attention" or "causal"
    batch: int
    tokens: int
    width: int = 256
    vocab: int = 10_000
    classes: int = 20
    heads: int = 4
    head_width: int = None
    pattern: str = "summation*3,attention"  # of the causal language model
    repeat_positions: bool = False

    @property
    def inner(self):
        """Width of all heads together."""
        return self.heads * (self.head_width or self.width // self.heads)

    def model_of_ours(self, threads, on_device=False):
        sizes = (self.vocab, self.width, self.classes, self.tokens)
        if self.model == "causal":
            return LanguageModel(self.vocab, self.width, self.pattern, self.tokens, self.heads)
        if self.model == "attention":
            attention = {"heads": self.heads, "head_width": self.head_width}
            return classifier.build("attention", *sizes, **attention)
        if (self.tokens < LONG or on_device) and not self.repeat_positions:
            return classifier.build("summation", *sizes)
        places = PERIOD if self.repeat_positions else self.tokens
        return LongDocumentClassifier(*sizes[:3], places, threads=threads)

    @cached_property
    def data(self):
        """A batch on the host without padding. Words are as frequent as in text: rank r ~ 1/r."""
        rng = np.random.default_rng([0, self.batch, self.tokens])
        frequencies = 1 / np.arange(1, self.vocab + 1)
        frequencies /= frequencies.sum()
        shape = (self.batch, self.tokens)
        ids = rng.choice(self.vocab, shape, p=frequencies).astype(np.int32)
        if self.model == "causal":
            targets = rng.choice(self.vocab, shape, p=frequencies).astype(np.int32)
            return {"ids": ids, "targets": targets}
        targets = rng.integers(0, self.classes, self.batch).astype(np.int32)
        return {"ids": ids, "mask": np.ones(shape, bool), "targets": targets}

    @cached_property
    def initial(self):
        """First values of the parameters, float32 on the host: both sides start from them."""
        arrays = flatten(self.model_of_ours(None).init(np.random.default_rng(0)))
        return {name: np.asarray(a, np.float32) for name, a in arrays.items()}

    def products(self):
        """(times, m, k, n) of the forward matrix products of one example."""
        n, d, inner, h = self.tokens, self.width, self.inner, self.inner // self.heads
        projections = [(3, n, d, inner), (1, n, inner, d)]
        weights = [(self.heads, n, h, n), (self.heads, n, n, h)]
        if self.model == "summation":
            return [(1, n, d, d), (1, 1, d, self.classes)]
        if self.model == "attention":
            return [*projections, *weights, (1, 1, d, self.classes)]
        shapes = [(1, n, d, self.vocab)]
        for name in parse_pattern(self.pattern):
            shapes += [(3, n, d, d)] if name == "summation" else [*projections, *weights]
            shapes += [(2, n, d, d)]
        return shapes

    def flops(self):
        """Of the matrix products of a training step: each of the forward ones three times."""
        return 3 * self.batch * sum(2 * times * m * k * n for times, m, k, n in self.products())


class Ours:
    """The workload in minisum, on `xp`."""

    def __init__(self, workload, xp, threads):
        self.xp, self.workload = xp, workload
        threads = threads if xp is np else None
        self.model = workload.model_of_ours(threads, xp is not np)
        self.total = self.model.count_targets(workload.data)
        self.params = Params.from_arrays(workload.initial, xp)
        self.grads = self.params.zeros_like()
        self.in_chunks = isinstance(self.model, LongDocumentClassifier)
        self.shards = Shards(self.model, threads=None if self.in_chunks else threads)
        self.batch = self.shards.to_device(workload.data, xp)
        self.workers = self.model.workers if self.in_chunks else self.shards.workers
        self.adam = Adam(self.params, workers=self.workers)

    def step(self):
        """Forward, backward, Adam."""
        loss = self.shards.loss_and_grads(self.params, self.grads, self.batch, self.total)
        self.adam.step(self.grads, LEARNING_RATE)
        return loss

    def infer(self):
        return self.shards.predict(self.params, self.batch)

    def outputs(self):
        """What the sides are compared by: class scores, or each target's nll in nats."""
        y = backend.to_numpy(self.infer())
        return y[..., 0] if self.workload.model == "causal" else y

    def products(self):
        """A function that does the matrix products of a step and no more."""
        workload, xp = self.workload, self.xp
        rows = workload.batch
        if xp is np:
            rows = 1 if self.in_chunks else self.shards.shard_rows(self.batch)
        blocks = -(-workload.batch // rows)
        workers = min(self.workers.count, blocks)
        runs = [
            products_of(workload, rows, len(range(worker, blocks, workers)), xp.asarray, matmul)
            for worker in range(workers)
        ]
        if blocks == 1:  # BLAS has the threads to itself
            return runs[0]
        return lambda: self.workers.each(lambda worker: runs[worker](), workers)


def two_steps(build):
    """What peak memory is measured of: build() makes a side, which is used, in an untimed run."""
    side = build()
    side.step(), side.step()


def products_of(workload, rows, blocks, put, multiply=operator.matmul):
    """A function that does the products of a step for `blocks` blocks of `rows` examples.

    put(a) brings a NumPy array to the library that is timed, multiply(A, B) is its product.
    """
    rng = np.random.default_rng(0)
    work = []
    for times, m, k, n in workload.products():
        # A linear layer is one product for all examples, attention's weights are a batch of them.
        batched = times == workload.heads and workload.tokens in (k, n) and m == workload.tokens
        count, m = (rows * times, m) if batched else (1, rows * m)
        repeats = 1 if batched else times
        while count * m * max(k, n) > LARGEST and (count > 1 or m > 1024):
            count, m = (-(-count // 2), m) if count > 1 else (1, -(-m // 2))
            repeats *= 2
        lead = (count,) if count > 1 else ()
        shapes = (*lead, m, k), (*lead, n, k), (*lead, m, n)
        A, B, G = (put(rng.standard_normal(shape, dtype=np.float32)) for shape in shapes)
        work.append((blocks * repeats, A, B, G, B.swapaxes(-1, -2), G.swapaxes(-1, -2)))

    def run():
        for repeats, A, B, G, Bt, Gt in work:
            for _ in range(repeats):
                multiply(A, Bt)
                multiply(G, B)
                multiply(Gt, A)

    return run
