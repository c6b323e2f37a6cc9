"""The loop on a toy task: exact resuming, choice of the epoch, checkpoints, divergence."""

import contextlib
import dataclasses
import json
import math
import signal

import numpy as np
import pytest

pytest.importorskip("safetensors")

import train.loop as loop
from minisum import checkpoint
from minisum.errors import UserError
from minisum.models.base import Model
from train.run.folder import RunFolder, new_path
from train.run.options import Config
from train.run.report import Report
from train.run.signals import Interrupted

TIMES = ("seconds", "tokens_per_second", "peak_memory_bytes", "sha256")


class Line(Model):
    """y = x · w with noise on the inputs: the smallest model there is."""

    def init(self, rng):
        return {"w": rng.normal(size=3)}

    def noise(self, rng, batch):
        return {"shake": rng.normal(size=batch["x"].shape).astype(np.float32)}

    def count_targets(self, batch):
        return len(batch["x"])

    def activation_size(self, batch):
        return 3

    def loss(self, params, batch, total):
        x = batch["x"] + 0.1 * batch["shake"]
        error = x @ params["w"] - batch["y"]

        def back(grads):
            grads["w"] += 2 / total * (error @ x)

        return (error * error).sum() / total, back

    def predict(self, params, batch):
        return batch["x"] @ params["w"]


class LineTask:
    name, dataset, data_sha256 = "line", "toy", "0" * 64
    metric, higher_is_better, report_metrics = "loss", False, ("loss",)
    details = {}
    report_metrics = ()
    train_size = 23
    pretrained = None

    def __init__(self, **settings):
        defaults = {"epochs": 4, "batch_size": 5, "lr": 0.05, "threads": 1, "shard_rows": 2}
        self.config = Config(**{**defaults, **settings})
        self.model = Line()
        rng = np.random.default_rng(7)
        self.x = rng.normal(size=(40, 3)).astype(np.float32)
        self.y = (self.x @ [1, -2, 3] + rng.normal(size=40)).astype(np.float32)
        self.splits = {"val": np.arange(23, 32), "test": np.arange(32, 40)}
        self.looked_at = []

    def order(self, epoch):
        return np.random.default_rng([self.config.seed, epoch]).permutation(self.train_size)

    def train_batch(self, rows):
        return {"x": self.x[rows], "y": self.y[rows]}

    def tokens(self, batch):
        assert "shake" not in batch  # real tokens count, whatever the noise does to them
        return len(batch["x"])

    def evaluate(self, split, predict, folder=None):
        self.looked_at.append(split)
        rows = self.splits[split]
        halves = [predict(self.train_batch(half)) for half in np.array_split(rows, 2)]
        return {"loss": float(np.mean((np.concatenate(halves) - self.y[rows]) ** 2))}

    def summary(self):
        return {"train_examples": self.train_size}

    def model_spec(self):
        return {}

    def fit_after(self, predict):
        return False

    def draw(self, folder):
        self.drawn_in = folder

    def sample(self, params):
        return "drawn"


class Silent(Report):
    def __init__(self):
        super().__init__()
        self.notes = []

    def say(self, text=""):
        pass

    def warn(self, text):
        self.notes.append(text)


def stop_after(calls):
    """Stands in for interruptible(): a signal has come at call number `calls`, from 0 on."""

    @contextlib.contextmanager
    def interruptible():
        count = iter(range(10**9))
        yield lambda: signal.SIGTERM if next(count) == calls else None

    return interruptible


def run(path, resume=False, report=None, **settings):
    folder = RunFolder(path)
    with folder.claimed():
        return loop.train(LineTask(**settings), folder, report or Silent(), resume)


def untimed(record):
    return {name: value for name, value in record.items() if name not in TIMES}


def record_of(path):
    """Everything a run leaves that must not depend on interruptions."""
    folder = RunFolder(path)
    arrays, meta = checkpoint.load(folder.last)
    best, best_meta = checkpoint.load(folder.best)
    lines = [untimed(json.loads(line)) for line in folder.metrics.read_text().splitlines()]
    position = untimed(meta["position"]) | {"history": len(meta["position"]["history"])}
    return {
        "state": {name: array.tobytes() for name, array in arrays.items()},
        "best": {name: array.tobytes() for name, array in best.items()},
        "best_epoch": best_meta["metrics"]["epoch"],
        "adam_steps": meta["adam_steps"],
        "position": position,
        "metrics": lines,
        "result": untimed(json.loads(folder.result.read_text())),
    }


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    path = tmp_path_factory.mktemp("straight")
    run(path)
    return record_of(path)


def test_resume_is_exact_from_every_point(straight, tmp_path, monkeypatch):
    """4 epochs x (5 steps + 2 validation batches) + 2 test batches = 30 points to stop at."""
    for calls in range(30):
        path = tmp_path / str(calls)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "interruptible", stop_after(calls))
            with pytest.raises(Interrupted):
                run(path)
        assert not RunFolder(path).result.exists()
        run(path, resume=True)
        assert record_of(path) == straight, f"stopped at check {calls}"


def test_resume_is_exact_through_many_stops(straight, tmp_path, monkeypatch):
    """Three checks at a time: every session gets a little further."""
    sessions = 0
    monkeypatch.setattr(loop, "interruptible", stop_after(3))
    while not RunFolder(tmp_path).result.exists():
        sessions += 1
        assert sessions < 30, "no progress"
        with contextlib.suppress(Interrupted):
            run(tmp_path, resume=sessions > 1)
    assert sessions > 8
    assert record_of(tmp_path) == straight


@pytest.mark.parametrize("epoch", [1, 2, 4])
@pytest.mark.parametrize("moment", ["best", "last", "metrics"])
def test_a_kill_between_two_writes_is_harmless(straight, tmp_path, monkeypatch, moment, epoch):
    """Best, last and metrics are three files: dying after any of them loses nothing."""

    class Killed(BaseException):
        pass

    target, name = {
        "best": (loop.Run, "save_best"),
        "last": (loop.Run, "save"),
        "metrics": (RunFolder, "write_metrics"),
    }[moment]
    original, calls = getattr(target, name), iter(range(1, 100))

    def write_then_die(self, *arguments):
        original(self, *arguments)
        if next(calls) == epoch:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(target, name, write_then_die)
        with pytest.raises(Killed):
            run(tmp_path)
    run(tmp_path, resume=True)
    assert record_of(tmp_path) == straight


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "gone"])
def test_damaged_last_falls_back_to_the_one_before(straight, tmp_path, monkeypatch, damage):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "interruptible", stop_after(17))
        with pytest.raises(Interrupted):
            run(tmp_path)
    folder = RunFolder(tmp_path)
    data = bytearray(folder.last.read_bytes())
    if damage == "flipped":
        data[-3] ^= 4
    folder.last.write_bytes({"truncated": data[:-9], "empty": b""}.get(damage, data))
    if damage == "gone":
        folder.last.unlink()
    report = Silent()
    run(tmp_path, resume=True, report=report)
    assert record_of(tmp_path) == straight
    assert bool(report.notes) == (damage != "gone")
    assert all("damaged" in note for note in report.notes)


def test_both_damaged_is_an_error_and_a_lost_start_begins_again(straight, tmp_path):
    folder = RunFolder(tmp_path)
    run(tmp_path, resume=True)  # nothing was saved yet
    assert record_of(tmp_path) == straight
    for path in (folder.last, folder.previous):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        run(tmp_path, resume=True)


def test_checkpoints_within_an_epoch(straight, tmp_path):
    run(tmp_path, save_every=0.0)
    assert record_of(tmp_path) == straight


def test_lost_best_is_written_again(straight, tmp_path):
    folder = RunFolder(tmp_path)
    run(tmp_path)
    folder.best.unlink()
    run(tmp_path, resume=True)
    assert record_of(tmp_path) == straight


def test_finished_run_is_not_done_again(tmp_path):
    result = run(tmp_path)
    task = LineTask()
    folder = RunFolder(tmp_path)
    with folder.claimed():
        assert loop.train(task, folder, Silent(), resume=True) == result
    assert task.looked_at == []


def test_more_epochs_later_equal_more_epochs_at_once(straight, tmp_path):
    run(tmp_path, epochs=2)
    report = Silent()
    run(tmp_path, epochs=4, resume=True, report=report)
    assert record_of(tmp_path) == straight
    assert report.notes == ["the test set is used again, after epoch 2 already"]


def test_test_split_is_looked_at_once_with_the_best_parameters(tmp_path):
    task = LineTask(lr=2.0, epochs=7)
    folder = RunFolder(tmp_path)
    with folder.claimed():
        result = loop.train(task, folder, Silent())
    assert task.looked_at == ["val"] * 7 + ["test"]
    history = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    lowest = min(history, key=lambda record: record["val_loss"])
    assert result["best_epoch"] == lowest["epoch"] < 7
    best = checkpoint.load(folder.best)[0]
    rows = task.splits["test"]
    expected = np.mean((task.x[rows] @ best["w"] - task.y[rows]) ** 2)
    assert result["test_loss"] == pytest.approx(expected, rel=1e-6)


def test_direction_of_the_metric(tmp_path):
    class Upwards(LineTask):
        higher_is_better = True

    task = Upwards()
    folder = RunFolder(tmp_path)
    with folder.claimed():
        result = loop.train(task, folder, Silent())
    history = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert result["best_epoch"] == max(history, key=lambda r: r["val_loss"])["epoch"]


def test_train_loss_is_the_mean_over_examples(tmp_path):
    """The last batch holds 3 of 23 examples, and counts as 3."""
    task = LineTask(epochs=1, lr=1e-12)
    folder = RunFolder(tmp_path)
    with folder.claimed():
        loop.train(task, folder, Silent())
    record = json.loads(folder.metrics.read_text())
    w = Line().init(np.random.default_rng([0, 0]))["w"]
    order, total = task.order(1), 0.0
    for step in range(1, 6):
        rows = order[(step - 1) * 5 : step * 5]
        batch = task.train_batch(rows)
        noise = task.model.noise(np.random.default_rng([0, 1, step]), batch)
        loss, _ = task.model.loss({"w": w}, {**batch, **noise}, len(rows))
        total += loss * len(rows)
    assert record["train_loss"] == pytest.approx(total / 23, rel=1e-5)
    assert record["step"] == 5


def test_divergence_names_the_batch_and_keeps_the_checkpoint(tmp_path):
    folder = RunFolder(tmp_path)
    run(tmp_path, epochs=1)
    before = checkpoint.load(folder.last)
    task = LineTask(epochs=3)
    task.y[task.order(2)[11]] = np.inf  # the third step of epoch 2
    with folder.claimed(), np.errstate(all="ignore"), pytest.raises(UserError) as error:
        loop.train(task, folder, Silent(), resume=True)
    message = str(error.value)
    assert "loss is inf at epoch 2, step 3 of 5" in message and "last good checkpoint" in message
    assert str(task.order(2)[11]) in message.partition("rows")[2]
    after = checkpoint.load(folder.last)
    assert before[0].keys() == after[0].keys() and before[1] == after[1]
    assert all(np.array_equal(before[0][name], after[0][name]) for name in before[0])


def test_last_step_that_overflows_is_not_saved(tmp_path):
    """One step an epoch: its own loss is finite, what it makes of the parameters is not."""
    folder = RunFolder(tmp_path)
    with np.errstate(all="ignore"), pytest.raises(UserError, match="no longer finite at epoch 1"):
        run(tmp_path, lr=1e39, epochs=1, batch_size=23)
    assert not folder.best.exists() and not folder.last.exists()


def test_parameters_that_overflow_are_not_saved(tmp_path):
    with np.errstate(all="ignore"), pytest.raises(UserError, match="has no checkpoint yet"):
        run(tmp_path, lr=3e38, epochs=1)
    assert not RunFolder(tmp_path).last.exists()


def test_patience_and_plateaus(tmp_path):
    result = run(tmp_path, lr=0.5, epochs=40, patience=3)
    assert result["epochs"] == result["best_epoch"] + 3 < 40
    assert loop.plateaus([], 2) == 0
    assert loop.plateaus([1, 2, 3], 1) == 0
    assert loop.plateaus([3, 2, 1, 0, 4, 4, 4], 2) == 2
    assert loop.plateaus([3, 2, 1], None) == 0
    assert loop.plateaus([math.nan, math.nan], 2) == 1


def test_lock_and_leftovers(tmp_path, monkeypatch):
    monkeypatch.setattr("minisum.files.LOCK_WAIT", 0.0)
    folder = RunFolder(tmp_path / "run")
    with folder.claimed():
        (folder.path / "last.safetensors.1.tmp").write_bytes(b"half")
        with pytest.raises(UserError, match="another run"), RunFolder(folder.path).claimed():
            pass
    with folder.claimed():
        assert [file.name for file in folder.path.iterdir()] == [".lock"]
        folder.config.write_text("{}")
        with pytest.raises(UserError, match="--resume"):
            folder.refuse_if_used()
    fresh = RunFolder(tmp_path / "fresh")
    with pytest.raises(UserError), fresh.claimed():
        raise UserError("bad input")
    assert not fresh.path.exists()
    assert folder.config.exists()


def test_new_paths_are_unique(tmp_path):
    names = set()
    for _ in range(3):
        path = new_path(tmp_path, "classifier-toy-summation")
        path.mkdir()
        names.add(path.name)
    assert len(names) == 3


def test_config_round_trip_through_json():
    config = Config(lr=0.1 + 0.2, clip_norm=1.0)
    assert Config(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1.0
