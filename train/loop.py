"""The training loop, the same for every task (see train.run.task) and on every rank.

Each process of a group runs this loop; rank 0 alone reports and writes (see train.run.group).

Randomness has no state: what happens in epoch e, step s is drawn from (seed, e, s), both counted
from 1. Stopping and resuming therefore needs only what training computed, and a resumed run gives
the same bits as one that was never stopped.
"""

import dataclasses
import hashlib
import math
import time

import numpy as np

from minisum import backend, checkpoint, files, machine
from minisum.errors import UserError
from minisum.optim import best_epoch, learning_rate
from minisum.shards import ahead
from train.run import group as process_group
from train.run.signals import Interrupted, interruptible
from train.run.trainer import Trainer

STEPS_BETWEEN_READS = 20  # reading a loss waits for the device, so they are read in groups


@dataclasses.dataclass
class Position:
    """How far a run has come. Saved with every checkpoint."""

    epoch: int = 1  # the current one
    step: int = 0  # steps done in it
    loss_sum: float = 0.0  # over those steps, each loss times its number of targets
    targets: int = 0
    tokens: int = 0
    step_seconds: float = 0.0  # spent in those steps
    seconds: float = 0.0  # spent on the run, breaks not counted
    history: list = dataclasses.field(default_factory=list)  # the lines of metrics.jsonl
    logged: list = dataclasses.field(default_factory=list)  # its lines between epochs
    logged_sum: float = 0.0  # of the losses since the last of them
    logged_targets: int = 0


def train(task, folder, report, resume=False, begin=None):
    """Train `task` in a claimed RunFolder and return the content of result.json.

    begin(): called on rank 0 once the run is certain to start.
    Raises Interrupted (state saved) after SIGINT or SIGTERM, UserError if the loss is not finite;
    both on all ranks or on none.
    """
    with interruptible() as received:
        run = Run(task, folder, report, received, resume)
        if begin is not None:
            run.group.from_rank_0(begin)
        trainer = run.trainer
        shards, params, grads = trainer.shards, trainer.params, trainer.grads
        try:
            for epoch in run.epochs():
                steps = range(run.at.step + 1, run.steps_an_epoch + 1)
                batches = ahead(batch_maker(task, trainer, epoch), steps)
                for rate, (part, targets, tokens) in zip(run.rates(), batches, strict=False):
                    part = backend.to_device(part, trainer.xp)
                    loss = shards.loss_and_grads(params, grads, part, max(1, targets))
                    trainer.reduce_grads()
                    trainer.adam.step(trainer.own_grads, rate, trainer.average)
                    trainer.gather_params()
                    run.count(loss, targets, tokens)
                run.close_epoch()
            return run.finish()
        except Interrupted:
            run.save()
            raise


def batch_maker(task, trainer, epoch):
    """make(step) -> this rank's part of a batch, on the host; the whole batch's targets, tokens."""
    config, model, order = task.config, task.model, task.order(epoch)

    def make(step):
        rows = order[(step - 1) * config.batch_size : step * config.batch_size]
        batch = task.train_batch(rows)
        tokens = task.tokens(batch)
        # All ranks draw the whole batch's noise: the same for any number of ranks.
        # Steps count from 1: to NumPy [seed, epoch, 0] is the same as [seed, epoch].
        batch |= model.noise(np.random.default_rng([config.seed, epoch, step]), batch)
        return trainer.local_batch(batch), model.count_targets(batch), tokens

    return make


class Run:
    """Everything around the steps: position, losses, validation, checkpoints, the result."""

    def __init__(self, task, folder, report, received, resume):
        self.task, self.folder, self.report, self.received = task, folder, report, received
        self.config = config = task.config
        self.group = process_group.group()
        self.trainer = self.group.on_all_ranks(lambda: Trainer(task, self.group))
        if config.backend == "cupy":
            self.group.connect_gpus()
        # The split that is evaluated after each epoch.
        self.selection_split = "test" if config.select == "test" else "val"
        self.selection_metric = f"{self.selection_split}_{task.metric}"
        self.steps_an_epoch = math.ceil(task.train_size / config.batch_size)
        self.at = Position()
        self.best = None  # the best epoch's vector, on the host
        self.unread = []  # (step, loss of this rank's part, targets), the losses on the device
        self.save_due, self.lines = False, None
        if config.log_every or config.eval_every:
            from train.run.lines import Lines

            self.lines = Lines(self)
        self.started = self.saved = time.perf_counter()
        if resume:
            self.group.from_rank_0(self.restore)
        self.broadcast_state()
        self.announce()

    def epochs(self):
        while self.at.epoch <= self.config.epochs and not self.stalled():
            yield self.at.epoch

    def rates(self):
        """The learning rates of the steps that are left in the epoch."""
        config, at = self.config, self.at
        rate_scale = 0.5 ** plateaus(self.scores(), config.plateau)
        total = self.steps_an_epoch * config.epochs
        self.clock = time.perf_counter()
        title = f"epoch {at.epoch}/{config.epochs}"
        with self.report.bar(title, self.steps_an_epoch, at.step) as advance:
            while at.step < self.steps_an_epoch:
                self.check()
                done = self.trainer.adam.steps
                rate = learning_rate(done, total, config.lr, config.warmup, config.schedule)
                yield rate_scale * rate
                if len(self.unread) == STEPS_BETWEEN_READS:
                    self.read_losses()
                advance(at.loss_sum / max(1, at.targets))
                if self.lines:
                    self.lines.evaluate()
                if self.save_due:
                    self.save()
        self.read_losses()

    def count(self, loss, targets, tokens):
        self.at.step += 1
        self.at.tokens += tokens
        self.unread.append((self.at.step, loss, targets))

    def read_losses(self):
        """Add the latest losses to the sums, in order; stop at one that is not finite."""
        parts = [backend.to_numpy(loss)[()] for _, loss, _ in self.unread]
        by_step = zip(*self.group.all_gather_object(parts), strict=True)
        for (step, _, targets), (first, *others) in zip(self.unread, by_step, strict=True):
            loss = float(sum(others, first))
            if not math.isfinite(loss):
                raise UserError(self.diverged(f"the loss is {loss}", step))
            self.at.loss_sum += loss * targets
            self.at.targets += targets
            if self.lines:
                self.lines.add_loss(step, loss, targets)
        self.unread.clear()
        now = time.perf_counter()
        self.at.step_seconds += now - self.clock
        self.clock = now

    def check(self):
        """Raise Interrupted if any rank was asked to end; see whether it is time to save.

        Each rank has its own signals and its own clock: the ranks agree here.
        """
        due = time.perf_counter() - self.saved > self.config.save_every
        signals, dues = zip(*self.group.all_gather_object((self.received(), due)), strict=True)
        self.save_due = dues[0]
        if number := next(filter(None, signals), None):
            raise Interrupted(number)

    def write_metrics(self):
        lines = [*self.at.logged, *self.at.history]
        self.folder.write_metrics(sorted(lines, key=lambda line: line["step"]))

    def require_finite(self):
        """A step's damage shows in the loss of the next one; before saving, look directly."""
        if not self.trainer.is_finite():
            raise UserError(self.diverged("the parameters are no longer finite", self.at.step))

    def diverged(self, what, step):
        size = self.config.batch_size
        rows = self.task.order(self.at.epoch)[(step - 1) * size : step * size]
        named = ", ".join(str(row) for row in rows[:8]) + (", ..." if len(rows) > 8 else "")
        place = f"epoch {self.at.epoch}, step {step} of {self.steps_an_epoch}"
        saved = self.folder.last.exists()
        kept = "keeps the last good checkpoint" if saved else "has no checkpoint yet"
        return (
            f"{what} at {place} (training rows {named}): training stopped and {self.folder} "
            f"{kept}; a lower --lr or --clip-norm 1 may help"
        )

    def close_epoch(self):
        """Validate, keep the parameters if they are the best so far, write everything down."""
        at, split = self.at, self.selection_split
        self.require_finite()
        self.trainer.gather_state()
        self.require_same()
        measured = self.task.evaluate(split, self.predict)
        record = {
            "epoch": at.epoch,
            "step": self.trainer.adam.steps,
            "train_loss": at.loss_sum / max(1, at.targets),
            **{f"{split}_{name}": value for name, value in measured.items()},
            "tokens_per_second": at.tokens / max(at.step_seconds, 1e-9),
            "seconds": self.elapsed(),
        }
        # The same on all ranks: it decides how the run goes on.
        record = self.group.from_rank_0(lambda: record)
        kept = {n: getattr(at, n) for n in ("logged", "logged_sum", "logged_targets")}
        self.at = Position(epoch=at.epoch + 1, history=[*at.history, record], **kept)
        is_best = self.kept_record() is record
        if is_best:
            self.best = backend.to_numpy(self.trainer.candidate.vector).copy()
            self.group.from_rank_0(self.save_best)
        self.save()
        self.group.from_rank_0(self.write_metrics)
        left = record["seconds"] / at.epoch * (self.config.epochs - at.epoch)
        self.report.epoch(record, self.config.epochs, left, is_best)
        if self.group.rank == 0 and (sample := self.task.sample(self.trainer.candidate)):
            self.report.sample(sample)

    def predict(self, batch):
        self.check()
        return self.trainer.predict(batch)

    def require_same(self):
        """Every rank takes the same steps; if they ever differ, do not train on."""
        if len(set(self.group.all_gather_object(self.trainer.digest()))) > 1:
            raise UserError("the ranks' parameters differ: training stopped before the checkpoint")

    def finish(self):
        """Test the epoch that is kept; the only use of the test split, unless that chose it."""
        done = len(self.at.history)
        earlier = self.group.from_rank_0(self.folder.read_result)
        if earlier and earlier["epochs"] == done and earlier.get("model") == self.best_digest():
            self.group.from_rank_0(self.draw)
            return earlier
        if earlier:
            self.report.warn(f"the test set is used again, after epoch {earlier['epochs']} already")
        self.trainer.used = self.trainer.params_of(self.best)
        if self.task.fit_after(self.predict):
            self.group.from_rank_0(self.save_best)
        write_to = self.folder.path if self.group.rank == 0 else None
        test = self.task.evaluate("test", self.predict, write_to)
        return self.group.from_rank_0(lambda: self.write_result(test))

    def write_result(self, test):
        kept, xp = self.kept_record(), self.trainer.xp
        speeds = [record["tokens_per_second"] for record in self.at.history]
        result = {
            "task": self.task.name,
            "dataset": self.task.dataset,
            "mixer": self.config.mixer,
            "backend": self.config.backend,
            "device": machine.device_name(xp),
            "ranks": self.group.size,
            "seed": self.config.seed,
            "parameters": self.trainer.params.count,
            "model": self.best_digest(),
            "epochs": len(self.at.history),
            "best_epoch": kept["epoch"],
            "epoch_chosen_by": self.config.select,
            self.selection_metric: kept[self.selection_metric],
            **{f"test_{name}": value for name, value in test.items()},
            **self.task.summary(),
            **self.task.details,
            "seconds": self.elapsed(),
            "tokens_per_second": float(np.median(speeds)),
            "peak_memory_bytes": self.trainer.peak_memory(),
            "versions": machine.versions(xp),
            "data_sha256": self.task.data_sha256,
        }
        files.write_json(self.folder.result, result, sealed=True)
        self.draw()
        return result

    def draw(self):
        from train.run.lines import draw

        draw(self.folder, self.task)

    def best_digest(self):
        """What was measured: a hash of the parameters that are kept."""
        return hashlib.sha256(self.best.tobytes()).hexdigest()

    def save(self):
        """Write the whole state, if it is one worth coming back to."""
        if self.unread:
            self.read_losses()
        self.require_finite()
        self.trainer.gather_state()
        self.group.from_rank_0(self.save_state)
        self.saved = time.perf_counter()

    def save_state(self):
        self.at.seconds = self.elapsed()
        arrays = self.trainer.on_host()
        if self.best is not None:
            arrays["best"] = self.best
        steps = self.trainer.adam.steps
        meta = {"position": dataclasses.asdict(self.at), "adam_steps": steps}
        meta["origin"] = self.folder.origin()
        checkpoint.save(self.folder.last, arrays, meta, previous=self.folder.previous)

    def save_best(self):
        arrays = self.trainer.params_of(self.best).to_host()
        spec, metrics = self.task.model_spec(), self.kept_record()
        meta = {"task": self.task.name, "metrics": metrics, "model_spec": spec}
        meta["origin"] = self.folder.origin()
        checkpoint.save(self.folder.best, arrays, meta)

    def restore(self):
        """Go back to the newest whole checkpoint; without one, stay at the beginning."""
        from minisum.runs.schema import wrong_state
        from train.run import finished

        state = self.folder.newest_state(self.report.warn)
        if state is None and not self.folder.result.exists():
            self.report.warn(f"{self.folder} has no checkpoint yet: starting at epoch 1")
            return
        if state is None:
            finished.restore(self)
        else:
            arrays, meta = state
            vectors = {name: params.vector.shape for name, params in self.trainer.state().items()}
            first = dataclasses.asdict(Position())
            if wrong_state(meta, first, self.selection_metric, arrays, vectors):
                raise UserError(f"the checkpoint in {self.folder} is of another model")
            self.folder.require_origin(meta)
            self.at = Position(**meta["position"])
            self.trainer.load(arrays, meta["adam_steps"])
            self.best = arrays.get("best")
        done = len(self.at.history) + (self.at.step > 0)
        if done > self.config.epochs:
            raise UserError(f"--epochs {self.config.epochs}: the run is in epoch {done} already")
        self.started -= self.at.seconds
        if self.best is not None and not self.folder.best.exists():
            self.save_best()
        self.write_metrics()

    def broadcast_state(self):
        trainer = self.trainer
        if self.group.size > 1:
            self.at, self.best, *state = self.group.from_rank_0(
                lambda: (self.at, self.best, trainer.on_host(), trainer.adam.steps)
            )
            trainer.load(*state)

    def announce(self):
        if self.config.select == "test":
            self.report.warn("the test set chooses the epoch: its score is no longer a test score")
        rows = {
            "parameters": f"{self.trainer.params.count:,}",
            "device": machine.device_name(self.trainer.xp),
            "out": str(self.folder),
        }
        if self.group.size > 1:
            how = self.group.kind + " and NCCL" * bool(self.group.nccl)
            rows["processes"] = f"{self.group.size}, joined by {how}"
        if self.at.epoch > self.config.epochs:
            rows["resumed at"] = f"the end: all {self.config.epochs} epochs are done"
        elif self.trainer.adam.steps:
            done = f"step {self.at.step} of {self.steps_an_epoch} done"
            rows["resumed at"] = f"epoch {self.at.epoch}, {done}"
        self.report.header(self.task, rows)

    def elapsed(self):
        return time.perf_counter() - self.started

    def scores(self):
        """The selection metric of every epoch, its sign turned so that more is better."""
        sign = 1 if self.task.higher_is_better else -1
        return [sign * record[self.selection_metric] for record in self.at.history]

    def kept_record(self):
        return self.at.history[-1 if self.config.select == "last" else self.best_epoch()]

    def best_epoch(self):
        """The place in the history of the epoch that the selection split prefers."""
        losses = [record.get(f"{self.selection_split}_loss", 0.0) for record in self.at.history]
        return best_epoch(zip(self.scores(), losses, strict=True))

    def stalled(self):
        """Whether --patience epochs have passed since the best one."""
        done, patience = len(self.at.history), self.config.patience
        return bool(patience and done and done - 1 - self.best_epoch() >= patience)


def plateaus(scores, patience):
    """How often `patience` scores in a row brought no new best (None: never counted)."""
    best, waited, count = -math.inf, 0, 0
    for score in scores:
        waited += 1
        if score > best:
            best, waited = score, 0
        elif waited == patience:
            waited, count = 0, count + 1
    return count
