"""The training loop, the same for every task (see train.run.task).

Randomness has no state: what happens in epoch e, step s is drawn from (seed, e, s), both counted
from 1. Stopping and resuming therefore needs the numbers that training computed and nothing else,
and a resumed run gives the same bits as one that was never stopped.
"""

import dataclasses
import math
import time

import numpy as np

from minisum import backend, checkpoint
from minisum.errors import UserError
from minisum.optim import learning_rate
from train.run import group as parallel
from train.run.replica import Team
from train.run.signals import Interrupted, interruptible

STEPS_BETWEEN_READS = 20  # reading a loss waits for the device, so they are read in groups


@dataclasses.dataclass
class Position:
    """How far a run has come. Saved with every checkpoint."""

    epoch: int = 1  # at work on this epoch
    step: int = 0  # steps done in it
    loss_sum: float = 0.0  # over those steps, each loss times its weight
    weight: int = 0
    tokens: int = 0
    step_seconds: float = 0.0  # spent in those steps
    seconds: float = 0.0  # spent on the run, breaks not counted
    history: list = dataclasses.field(default_factory=list)  # the lines of metrics.jsonl


def train(task, folder, report, resume=False):
    """Train `task` in a claimed RunFolder and return the content of result.json.

    Raises Interrupted (state saved) after SIGINT or SIGTERM, UserError if the loss is not finite.
    """
    with interruptible() as check:
        run = Run(task, folder, report, check)
        if resume:
            run.restore()
        run.team.share()
        run.announce()
        try:
            while run.at.epoch <= task.config.epochs and not run.stalled():
                run.train_epoch()
                run.close_epoch()
            return run.finish()
        except Interrupted:
            run.save()
            raise


class Run:
    """Parameters, optimiser and position of one run, and what happens to them."""

    def __init__(self, task, folder, report, check):
        self.task, self.folder, self.report = task, folder, report
        self.asked_to_stop = check
        self.config = config = task.config
        self.team = Team(task, parallel.group())
        self.replica = replica = self.team.replica
        self.xp, self.params, self.adam = replica.xp, replica.params, replica.adam
        self.candidate = replica.candidate
        self.judge = "test" if config.select == "test" else "val"  # the split that sees each epoch
        self.steps = math.ceil(task.train_size / config.batch_size)  # an epoch
        self.at = Position()
        self.best = None  # the best epoch's vector, on the host
        self.unread = []  # (step, weight) of the losses that the replicas still hold
        self.started = self.saved = time.perf_counter()

    def train_epoch(self):
        """The steps of the current epoch that are not done yet."""
        config, at = self.config, self.at
        rate_scale = 0.5 ** plateaus(self.values(), config.plateau)
        total_steps = self.steps * config.epochs
        self.clock = time.perf_counter()
        with self.report.bar(f"epoch {at.epoch}/{config.epochs}", self.steps, at.step) as advance:
            while at.step < self.steps:
                self.check()
                rate = rate_scale * learning_rate(
                    self.adam.steps, total_steps, config.lr, config.warmup, config.schedule
                )
                weight, tokens = self.team.all("step", at.epoch, at.step + 1, rate)
                at.step += 1
                at.tokens += tokens
                self.unread.append((at.step, weight))
                if len(self.unread) == STEPS_BETWEEN_READS:
                    self.read_losses()
                advance(at.loss_sum / max(1, at.weight))
                if time.perf_counter() - self.saved > config.save_every:
                    self.save()
        self.read_losses()

    def read_losses(self):
        """Add the latest losses to the sums, in order; stop at one that is not finite."""
        losses = self.team.all("losses")
        for (step, weight), loss in zip(self.unread, losses, strict=True):
            if not math.isfinite(loss):
                raise UserError(self.diverged(f"the loss is {loss}", step))
            self.at.loss_sum += loss * weight
            self.at.weight += weight
        self.unread.clear()
        now = time.perf_counter()
        self.at.step_seconds += now - self.clock
        self.clock = now

    def check(self):
        """Raise Interrupted if this process or another of the group was asked to end."""
        self.asked_to_stop()
        self.team.check()

    def require_finite(self):
        """A step's damage shows in the loss of the next one; before saving, look directly."""
        if not bool(self.xp.isfinite(self.params.vector).all()):
            raise UserError(self.diverged("the parameters are no longer finite", self.at.step))

    def diverged(self, what, step):
        size = self.config.batch_size
        rows = self.task.order(self.at.epoch)[(step - 1) * size : step * size]
        named = ", ".join(str(row) for row in rows[:8]) + (", ..." if len(rows) > 8 else "")
        place = f"epoch {self.at.epoch}, step {step} of {self.steps} (training rows {named})"
        saved = self.folder.last.exists()
        kept = "keeps the last good checkpoint" if saved else "has no checkpoint yet"
        return (
            f"{what} at {place}: training stopped and {self.folder} {kept}; "
            "a lower --lr or --clip-norm 1 may help"
        )

    def close_epoch(self):
        """Validate, keep the parameters if they are the best so far, write everything down."""
        at, task = self.at, self.task
        self.require_finite()
        self.team.all("complete")
        self.team.require_same()
        measured = task.evaluate(self.judge, self.predict)
        record = {
            "epoch": at.epoch,
            "step": self.adam.steps,
            "train_loss": at.loss_sum / max(1, at.weight),
            **{f"{self.judge}_{name}": value for name, value in measured.items()},
            "tokens_per_second": at.tokens / max(at.step_seconds, 1e-9),
            "seconds": self.elapsed(),
        }
        history = [*at.history, record]
        self.at = Position(epoch=at.epoch + 1, history=history)
        if self.best_record() is record:
            self.best = backend.to_numpy(self.candidate.vector).copy()
            self.save_best()
        self.save()
        self.folder.write_metrics(history)
        left = record["seconds"] / at.epoch * (self.config.epochs - at.epoch)
        self.report.epoch(record, self.config.epochs, left, self.best_record() is record)

    def predict(self, batch):
        self.check()
        return self.team.all("predict", batch)

    def finish(self):
        """Test the epoch that is kept; the one look at the test split, unless that chose it."""
        done = len(self.at.history)
        earlier = self.folder.read_result()
        if earlier and earlier.get("epochs") == done:
            return earlier
        self.team.all("use", self.best)
        test = self.task.evaluate("test", self.predict)
        tokens_per_second = [record["tokens_per_second"] for record in self.at.history]
        result = {
            "task": self.task.name,
            "dataset": self.task.dataset,
            "mixer": self.config.mixer,
            "backend": self.config.backend,
            "device": backend.device_name(self.xp),
            "ranks": self.team.group.size,
            "seed": self.config.seed,
            "parameters": self.params.count,
            "epochs": done,
            "best_epoch": self.best_record()["epoch"],
            "epoch_chosen_by": self.config.select,
            self.judged: self.best_record()[self.judged],
            **{f"test_{name}": value for name, value in test.items()},
            **self.task.facts(),
            "seconds": self.elapsed(),
            "tokens_per_second": float(np.median(tokens_per_second)),
            "peak_memory_bytes": self.replica.peak_memory(),
            "versions": self.report.versions(self.xp),
            "data_sha256": self.task.data_sha256,
        }
        self.folder.write_json(self.folder.result, result)
        return result

    def save(self):
        """Write the whole state, if it is one worth coming back to."""
        if self.unread:
            self.read_losses()
        self.require_finite()
        self.at.seconds = self.elapsed()
        self.team.all("complete")
        arrays = self.replica.on_host()
        if self.best is not None:
            arrays["best"] = self.best
        meta = {"position": dataclasses.asdict(self.at), "adam_steps": self.adam.steps}
        meta["origin"] = self.folder.origin()
        checkpoint.save(self.folder.last, arrays, meta, previous=self.folder.previous)
        self.saved = time.perf_counter()

    def best_params(self):
        best = self.params.zeros_like()
        best.vector[...] = self.xp.asarray(self.best)
        return best

    def save_best(self):
        arrays = {name: backend.to_numpy(array) for name, array in self.best_params().flat.items()}
        meta = {"task": self.task.name, "metrics": self.best_record(), "card": self.task.card()}
        meta["origin"] = self.folder.origin()
        checkpoint.save(self.folder.best, arrays, meta)

    def restore(self):
        """Go back to the newest whole checkpoint; without one, stay at the beginning."""
        state = self.folder.newest_state(self.report.warn)
        if state is None:
            self.report.warn(f"{self.folder} has no checkpoint yet: starting at epoch 1")
            return
        arrays, meta = state
        self.folder.require_origin(meta)
        try:
            self.at = Position(**meta["position"])
            self.replica.load(arrays, meta["adam_steps"])
            self.best = arrays.get("best")
        except (KeyError, TypeError, ValueError):
            raise UserError(f"the checkpoint in {self.folder} is of another model") from None
        done = len(self.at.history) + (self.at.step > 0)
        if done > self.config.epochs:
            raise UserError(f"--epochs {self.config.epochs}: the run is in epoch {done} already")
        self.started -= self.at.seconds
        if self.best is not None and not self.folder.best.exists():
            self.save_best()
        self.folder.write_metrics(self.at.history)

    def announce(self):
        if self.config.select == "test":
            self.report.warn("the test set chooses the epoch: its figure is no test, but a maximum")
        position = f"epoch {self.at.epoch}, step {self.at.step} of {self.steps} done"
        if self.at.epoch > self.config.epochs:
            position = f"the end: all {self.config.epochs} epochs are done"
        self.report.header(
            self.task,
            {
                "parameters": f"{self.params.count:,}",
                "device": backend.device_name(self.xp),
                "out": str(self.folder),
                **self.team.described(),
                **({"resumed at": position} if self.adam.steps else {}),
            },
        )

    def elapsed(self):
        return time.perf_counter() - self.started

    def values(self):
        """The metric that judges an epoch, of every epoch, turned so that more is better."""
        sign = 1 if self.task.higher_is_better else -1
        return [sign * record[self.judged] for record in self.at.history]

    @property
    def judged(self):
        """The metric of an epoch by which one is chosen: "val_accuracy"."""
        return f"{self.judge}_{self.task.metric}"

    def best_record(self):
        """The epoch that is kept."""
        return self.at.history[-1 if self.config.select == "last" else self.leader()]

    def leader(self):
        values = [-math.inf if math.isnan(value) else value for value in self.values()]
        return values.index(max(values))

    def stalled(self):
        """Whether --patience epochs have passed since the best one."""
        done, patience = len(self.at.history), self.config.patience
        return bool(patience and done and done - 1 - self.leader() >= patience)


def plateaus(values, patience):
    """How often `patience` values in a row brought no new best (None: never counted)."""
    best, waited, count = -math.inf, 0, 0
    for value in values:
        waited += 1
        if value > best:
            best, waited = value, 0
        elif waited == patience:
            waited, count = 0, count + 1
    return count
