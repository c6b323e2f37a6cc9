"""One rank's copy of a model in training: parameters, gradient, optimiser, running average.

Every rank holds all parameters and computes the gradient of its part of each batch. Adam and the
average are computed entry by entry, so each rank updates one slice of the vector and then gathers
the others: the optimiser's work is divided among the ranks too.
"""

import hashlib

import numpy as np

from minisum import backend, machine
from minisum.optim import Adam, Average
from minisum.params import Params
from minisum.shards import Shards


class ParameterSlice:
    """The part of a Params that one rank's optimiser updates; to Adam it is a Params."""

    def __init__(self, whole, part):
        self.whole, self.part = whole, part
        self.xp, self.dtype, self.vector = whole.xp, whole.dtype, whole.vector[part]

    def zeros_like(self):
        return ParameterSlice(self.whole.zeros_like(), self.part)

    def weights(self):
        return self.whole.weights()[self.part]


class Trainer:
    def __init__(self, task, group):
        self.task, self.group = task, group
        config = task.config
        if group.size > 1 and config.backend == "cupy":
            machine.use_gpu(group.rank)
        self.xp = machine.backend_in(config.backend, config.precision)
        initial = task.model.init(np.random.default_rng([config.seed, 0]))
        if task.pretrained:
            initial = task.pretrained.fill(initial, config.mixer)
        self.params = Params.from_arrays(initial, xp=self.xp)
        self.grads = self.params.zeros_like()
        threads = config.threads if self.xp is np else None
        self.shards = Shards(task.model, threads=threads, rows=config.shard_rows)
        # Clipping by the norm needs the whole gradient on every rank.
        self.sliced = group.size > 1 and self.xp is np and config.clip_norm is None
        own = self.slice_of(self.params)
        self.own_grads = self.slice_of(self.grads)
        rules = config.pick("raw_epsilon", "weight_decay", "clip_value", "clip_norm")
        self.adam = Adam(own, eps=config.epsilon, workers=self.shards.workers, **rules)
        # What is validated and kept: the parameters themselves, or their running average.
        self.average = Average(own, config.ema) if config.ema else None
        self.candidate = self.used = whole(self.average.params if self.average else own)
        self.candidate.vector[...] = self.params.vector  # the other ranks' slices too

    def slice_of(self, params):
        if not self.sliced:
            return params
        return ParameterSlice(params, self.group.local_shard(params.vector))

    def local_batch(self, batch):
        """This rank's part of a batch, on the host, as its device takes it."""
        return self.shards.prepare(self.group.local_batch(batch), self.xp)

    def reduce_grads(self):
        """Replace the gradient of this rank's part, where Adam reads it, by the sum over ranks."""
        self.group.reduce_scatter(self.grads.vector)
        if not self.sliced:
            self.group.all_gather(self.grads.vector)

    def gather_params(self):
        """Bring the slices that the other ranks updated."""
        if self.sliced:
            self.group.all_gather(self.params.vector)

    def state(self):
        """Every vector that training changes, by its name in a checkpoint."""
        mirrors = {"params": self.params, "m": whole(self.adam.m), "v": whole(self.adam.v)}
        return mirrors | ({"average": self.candidate} if self.average else {})

    def gather_state(self):
        """Bring all of `state` up to date on every rank."""
        if self.sliced:
            for mirror in self.state().values():
                self.group.all_gather(mirror.vector)

    def on_host(self):
        return {name: backend.to_numpy(mirror.vector) for name, mirror in self.state().items()}

    def load(self, arrays, steps):
        """Take over the state of a checkpoint, or of rank 0."""
        for name, mirror in self.state().items():
            mirror.vector[...] = self.xp.asarray(arrays[name])
        self.adam.steps = steps

    def params_of(self, vector):
        """Params with the values of a vector on the host."""
        params = self.params.zeros_like()
        params.vector[...] = self.xp.asarray(vector)
        return params

    def predict(self, batch):
        """The model's outputs for `batch`, on the host of every rank."""
        part = self.group.local_batch(batch)
        outputs = None
        if self.group.size == 1 or len(next(iter(part.values()))):
            on_device = self.shards.to_device(part, self.xp)
            outputs = backend.to_numpy(self.shards.predict(self.used, on_device))
        return self.group.merge(self.group.all_gather_object(outputs))

    def is_finite(self):
        return bool(self.xp.isfinite(self.params.vector).all())

    def digest(self):
        """A hash of the parameters, the same on all ranks."""
        return hashlib.blake2b(backend.to_numpy(self.params.vector).tobytes()).digest()

    def peak_memory(self):
        """Bytes that this process has taken at most, a GPU's recordings included."""
        recorder = None if self.xp is np else self.shards.recorder
        return machine.peak_memory(self.xp) + (recorder.memory() if recorder else 0)


def whole(params):
    """All of what a slice is a part of."""
    return params.whole if isinstance(params, ParameterSlice) else params
