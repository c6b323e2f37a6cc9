"""One process's copy of a model in training, and how several of them act as one.

Every rank holds the parameters, Adam's moments and the running average, computes the gradient of
its own part of each batch, and takes the same step against the sum of all ranks' gradients. Rank 0
alone runs the loop (train.loop), reads data, writes files and talks. The others do what it says:
each method of Replica that rank 0 calls through `Team.all` is called on all ranks at once. A group
of one does the same with nobody to tell.
"""

import contextlib
import hashlib
import sys
import traceback

import numpy as np

from minisum import backend
from minisum.errors import UserError
from minisum.optim import Adam, Average
from minisum.params import Params
from minisum.shards import Shards
from train.run.report import emit
from train.run.signals import Interrupted, interruptible


class Stretch:
    """The part of a Params that one rank's optimiser looks after; to Adam it is a Params."""

    def __init__(self, whole, part):
        """part: a slice of the vector."""
        self.whole, self.part = whole, part
        self.xp, self.dtype, self.vector = whole.xp, whole.dtype, whole.vector[part]

    def zeros_like(self):
        return Stretch(self.whole.zeros_like(), self.part)

    def weights(self):
        return self.whole.weights()[self.part]


class Replica:
    def __init__(self, task, group):
        self.task, self.group = task, group
        self.config = config = task.config
        if group.size > 1 and config.backend == "cupy":
            group.take_gpu()
        self.xp = backend.get(config.backend)
        initial = task.model.init(np.random.default_rng([config.seed, 0]))
        self.params = Params.from_arrays(initial, xp=self.xp)
        self.grads = self.params.zeros_like()
        threads = config.threads if self.xp is np else None
        self.runner = Shards(task.model, threads=threads, rows=config.shard_rows)
        # The norm of the gradient takes all of it; without one, each rank steps on its stretch.
        self.shared = group.size > 1 and self.xp is np and config.clip_norm is None
        own = self.own_params = self.stretch(self.params)
        self.own_grads = self.stretch(self.grads)
        self.adam = Adam(
            own,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            clip_value=config.clip_value,
            clip_norm=config.clip_norm,
            workers=self.runner.workers,
        )
        # What is validated and kept: the parameters themselves, or their running average.
        self.average = Average(own, config.ema, self.runner.workers) if config.ema else None
        self.candidate = self.used = whole(self.average.params if self.average else own)
        self.candidate.vector[...] = self.params.vector  # the other ranks' stretches too
        self.order = (None, None)  # an epoch, and the order of the rows in it
        self.unread = []  # losses of this rank's parts, on the device

    def stretch(self, params):
        return Stretch(params, self.group.own(params.vector)) if self.shared else params

    def connect(self):
        """Why the ranks' GPUs cannot be joined, or None."""
        return self.group.connect_gpus() if self.config.backend == "cupy" else None

    def state(self):
        """Every vector that training changes, by its name in a checkpoint."""
        mirrors = {"params": self.params, "m": whole(self.adam.m), "v": whole(self.adam.v)}
        return mirrors | ({"average": self.candidate} if self.average else {})

    def complete(self):
        """Bring all of `state` up to date on every rank."""
        if self.shared:
            for mirror in self.state().values():
                self.group.spread(mirror.vector)

    def on_host(self):
        return {name: backend.to_numpy(mirror.vector) for name, mirror in self.state().items()}

    def load(self, arrays, steps):
        """Take over the state of a checkpoint, or of rank 0."""
        for name, mirror in self.state().items():
            mirror.vector[...] = self.xp.asarray(arrays[name])
        self.adam.steps = steps

    def step(self, epoch, step, rate):
        """Training step number `step` (from 1) of an epoch. Returns the batch's weight and tokens.

        Every rank draws the whole batch and its noise, which are the same for any number of ranks,
        and then works on its part.
        """
        config, task = self.config, self.task
        if self.order[0] != epoch:
            self.order = epoch, task.order(epoch)
        rows = self.order[1][(step - 1) * config.batch_size : step * config.batch_size]
        batch = task.train_batch(rows)
        # Steps count from 1: to NumPy [seed, epoch, 0] is the same seed as [seed, epoch].
        rng = np.random.default_rng([config.seed, epoch, step])
        batch = {**batch, **task.model.noise(rng, batch)}
        weight = task.model.count_targets(batch)
        self.unread.append(self.loss_and_grads(self.group.part(batch), weight))
        self.group.add_up(self.grads.vector)
        if not self.shared:
            self.group.spread(self.grads.vector)
        self.adam.step(self.own_grads, rate)
        if self.average:
            self.average.update(self.own_params, self.adam.steps)
        if self.shared:
            self.group.spread(self.params.vector)
        return weight, task.tokens(batch)

    def loss_and_grads(self, part, weight):
        """This rank's share of the batch's loss; its share of the gradient is in `grads`."""
        if not examples(part):  # the last batch of an epoch may be smaller than the group
            self.grads.vector[...] = 0
            return 0.0
        on_device = self.task.model.to_device(part, self.xp)
        return self.runner.loss_and_grads(self.params, self.grads, on_device, weight)

    def losses(self):
        """The losses of the steps since the last call, all ranks' shares added up in order."""
        own = [backend.to_numpy(loss)[()] for loss in self.unread]
        self.unread.clear()
        steps = zip(*self.group.exchange(own), strict=True)
        return [float(sum(shares[1:], shares[0])) for shares in steps]

    def use(self, vector):
        """Predict with the parameters in this vector of the host from now on."""
        self.used = self.params.zeros_like()
        self.used.vector[...] = self.xp.asarray(vector)

    def predict(self, batch):
        """The model's outputs for `batch`, on the host."""
        part = self.group.part(batch)
        outputs = None
        if examples(part) or self.group.size == 1:
            on_device = self.task.model.to_device(part, self.xp)
            outputs = backend.to_numpy(self.runner.predict(self.used, on_device))
        return self.group.whole(self.group.exchange(outputs))

    def peak_memory(self):
        """Bytes that this process has taken at most, a GPU's recordings included."""
        recorder = self.runner.recorder
        return backend.peak_memory(self.xp) + (recorder.memory() if recorder else 0)

    def digests(self):
        """A fingerprint of each rank's parameters: replicas of one model have the same."""
        content = backend.to_numpy(self.params.vector).tobytes()
        return self.group.exchange(hashlib.blake2b(content).digest())


def whole(params):
    """All of what a stretch is a part of."""
    return params.whole if isinstance(params, Stretch) else params


def examples(batch):
    return len(next(iter(batch.values())))


class Team:
    """Rank 0's replica and, through the group, all others."""

    def __init__(self, task, group):
        self.group = group
        self.asked_to_stop = None  # the number of a signal that another rank was sent
        self._tell("begin", task)
        with together(group):
            self.replica = Replica(task, group)
        if problem := self.all("connect"):
            raise UserError(problem)

    def all(self, method, *arguments):
        """replica.method(*arguments) on every rank; what it returns here."""
        self._tell(method, *arguments)
        with together(self.group):
            return getattr(self.replica, method)(*arguments)

    def share(self):
        """Give all replicas the state of this one."""
        if self.group.size > 1:
            self.all("load", self.replica.on_host(), self.replica.adam.steps)

    def check(self):
        """Raise Interrupted if another rank was asked to end."""
        if self.asked_to_stop:
            raise Interrupted(self.asked_to_stop)

    def described(self):
        """A line for the header, if there is something to say."""
        size, kind = self.group.size, self.group.kind
        how = kind + (" and NCCL" if self.group.nccl else "")
        return {"processes": f"{size}, joined by {how}"} if size > 1 else {}

    def require_same(self):
        """Every rank takes the same steps; should one ever differ, do not train on."""
        if self.group.size > 1 and len(set(self.all("digests"))) > 1:
            raise UserError("the ranks' parameters differ: training stopped before the checkpoint")

    def _tell(self, word, *arguments):
        with together(self.group):
            _, *signals = self.group.exchange((word, arguments))
        self.asked_to_stop = next(filter(None, signals), self.asked_to_stop)


def follow(group):
    """What the ranks but 0 do: as they are told, to the end. Returns the exit status."""
    replica = None
    with interruptible() as check, together(group):
        while True:
            word, arguments = group.exchange(received(check))[0]
            if word == "end":
                return arguments[0]
            if word == "begin":
                replica = Replica(*arguments, group)
            else:
                getattr(replica, word)(*arguments)


def dismiss(group, status):
    """Rank 0's last word to the others."""
    if group.size > 1:
        group.exchange(("end", (status,)))


def received(check):
    """The number of the signal that this process was sent, or None."""
    try:
        check()
    except Interrupted as stop:
        return stop.number
    return None


@contextlib.contextmanager
def together(group):
    """What fails in here fails on one rank while others wait for it: say so and end them all."""
    try:
        yield
    except BaseException as error:
        if group.size == 1 or isinstance(error, SystemExit):
            raise
        status = 1
        if isinstance(error, (UserError, MemoryError)):
            status = 2
            what = str(error) or "no memory"
            emit(sys.stderr, f"error: rank {group.rank} of {group.size}: {what}")
        elif isinstance(error, KeyboardInterrupt):
            status = 130
        else:
            traceback.print_exc()
        group.abort(status)
