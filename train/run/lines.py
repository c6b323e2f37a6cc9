"""Lines of metrics.jsonl between epochs: losses by --log-every, validations by --eval-every."""

import contextlib
import time

from minisum import files
from train.run.curves import learning_curves


class Lines:
    """Writes the lines between epochs of a train.loop.Run."""

    def __init__(self, run):
        self.run = run

    def due(self, every, step):
        """Whether a step of this epoch is one of every `every` of the run."""
        return every and self.count(step) % every == 0

    def count(self, step):
        return self.run.steps_an_epoch * (self.run.at.epoch - 1) + step

    def log(self, step, measured):
        """Write a line of this step."""
        place = {"epoch": self.run.at.epoch, "step": self.count(step)}
        self.run.at.logged.append(place | measured)
        self.run.group.from_rank_0(self.run.write_metrics)

    def add_loss(self, step, loss, targets):
        """Count the loss of a step; write down the mean since the last line if one is due."""
        at = self.run.at
        at.logged_sum += loss * targets
        at.logged_targets += targets
        if self.due(self.run.config.log_every, step):
            self.log(step, {"loss": at.logged_sum / max(1, at.logged_targets)})
            at.logged_sum, at.logged_targets = 0.0, 0

    def evaluate(self):
        """Validate within an epoch, if that is due; the epoch's end chooses."""
        run, step = self.run, self.run.at.step
        if step < run.steps_an_epoch and self.due(run.config.eval_every, step):
            run.read_losses()
            run.trainer.gather_state()
            measured = run.task.evaluate(run.selection_split, run.predict)
            self.log(step, {f"{run.selection_split}_{name}": v for name, v in measured.items()})
            run.clock = time.perf_counter()


def draw(folder, task):
    """Draw a finished run, curves.svg last: with another one, a kill has left pictures undrawn."""
    path, curves = folder.path / "curves.svg", learning_curves(folder.metrics)
    if not path.is_file() or files.read_bytes(path, files.JSON_BYTES) != curves.encode():
        task.draw(folder.path)
        files.write_text(path, curves)


def mark_latest(path):
    """Make runs/latest point to a run's folder, if that is in runs and the system has links."""
    link = path.parent / "latest"
    if path.parent.name == "runs" and path.name != "latest":
        with contextlib.suppress(OSError):
            if link.is_symlink():
                link.unlink()
            link.symlink_to(path.name, target_is_directory=True)
