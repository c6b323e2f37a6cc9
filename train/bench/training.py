"""Real training: steps on a corpus, batches made on the way, beside PyTorch's on the same batches.

Ours are the steps of train.loop, with the classifier's defaults: making a batch, drawing its noise,
moving it, dropout, Adam and the running average. PyTorch's are those of a careful user, who has
batches padded to their longest text and, on a GPU, in pinned memory: these are made beforehand and
cost it nothing. It draws its dropout on the device.
"""

import itertools

import numpy as np

from minisum import backend
from minisum.errors import UserError
from minisum.params import flatten
from minisum.shards import ahead
from train.bench.compare import listed
from train.classifier import Classification, ClassifierConfig
from train.loop import batch_maker
from train.run.group import ProcessGroup
from train.run.trainer import Trainer

# Steps that are timed as one: the same batches on both sides, and the next ones in the next round.
STEPS = 32
# Corpus -> the target on a processor; on a GPU it is one for all.
CORPORA, GPU_TARGET = {"python_docs": 1.5, "ag_news": 2.0, "20newsgroups": 1.5}, 5.0


def training(bench):
    for corpus, target in CORPORA.items():
        config = ClassifierConfig(
            dataset=corpus, threads=bench.threads, epochs=1, backend=bench.xp.__name__,
            precision=bench.precision,
        )  # fmt: skip
        try:
            task = Classification.load(config, None, resume=False)
        except UserError as reason:
            print(f"\nno training on {corpus}: {reason}")
            continue
        yield corpus_line(bench, task, GPU_TARGET if bench.on_device else target)


def corpus_line(bench, task, target):
    """The line of one corpus: a step of each side, and tokens a second."""
    ours, sides = OurTraining(task), {}
    if bench.torch:
        from train.bench.pytorch_training import TheirTraining

        beside = ["bf16"] if bench.on_device and bench.precision != "bf16" else []
        names = [*bench.modes, *beside]
        first = initial(task), bench.device
        sides = {name: TheirTraining(task, *first, name, STEPS) for name in names}
    batch = task.train_batch(task.order(1)[: task.config.batch_size])
    differ = max([difference(ours, side, batch) for side in sides.values()], default=None)
    runs = {"ours": ours.run} | {name: side.run for name, side in sides.items()}
    seconds = {
        name: {key: value / (1 if key == "rounds" else STEPS) for key, value in times.items()}
        for name, times in bench.times(runs).items()
    }
    steps, tokens = ours.steps_an_epoch, int(task.texts["train"].lengths.sum())
    epoch = steps * seconds["ours"]["median"]
    found = {"seconds": seconds, "steps": steps, "tokens": tokens, "outputs_differ": differ}
    what = f"training on {task.dataset}, a step of {task.config.batch_size} texts"
    line = bench.line("training", what, seconds["ours"], bench.theirs(found), found, target)
    line.notes.append(
        f"{tokens / epoch:,.0f} real tokens/s; an epoch of {steps} steps takes {epoch:.2f} s"
    )
    if sides:
        line.notes.append(f"PyTorch: {listed({name: seconds[name] for name in sides})}")
        line.notes.append(f"scores without dropout agree to {differ:.0e} of their size")
    return line


class OurTraining:
    def __init__(self, task):
        self.task, self.trainer = task, Trainer(task, ProcessGroup())
        self.steps_an_epoch = -(-task.train_size // task.config.batch_size)
        self.batches = self.make()

    def make(self):
        """The first epoch's batches, over and over, made ahead as in a run."""
        while True:
            make = batch_maker(self.task, self.trainer, epoch=1)
            yield from ahead(make, range(1, self.steps_an_epoch + 1))

    def run(self):
        trainer = self.trainer
        for part, targets, _ in itertools.islice(self.batches, STEPS):
            part = backend.to_device(part, trainer.xp)
            trainer.shards.loss_and_grads(trainer.params, trainer.grads, part, targets)
            trainer.adam.step(trainer.own_grads, self.task.config.lr, trainer.average)

    def outputs(self, batch):
        """Scores of a batch by the parameters themselves."""
        shards, params = self.trainer.shards, self.trainer.params
        on_device = shards.to_device(batch, self.trainer.xp)
        return backend.to_numpy(shards.predict(params, on_device))


def initial(task):
    """The first values of our parameters, by dotted names, float32 on the host."""
    arrays = flatten(task.model.init(np.random.default_rng([task.config.seed, 0])))
    return {name: np.asarray(a, np.float32) for name, a in arrays.items()}


def difference(ours, theirs, batch):
    a, b = ours.outputs(batch), theirs.outputs(batch)
    return float(np.abs(a - b).max() / np.abs(b).max())
