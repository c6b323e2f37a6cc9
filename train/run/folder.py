"""The folder of a run: who may write to it, and the files in it.

- config.json: the settings, the task and the hash of the data
- tokenizer.json: how texts become token numbers, where the task has texts
- metrics.jsonl: a line an epoch
- result.json: the test metrics, written once at the end
- best.safetensors: the parameters of the best epoch, by name
- last.safetensors: the whole state of training, for --resume
- last.previous.safetensors: the one before it, should the last be damaged
"""

import contextlib
import datetime
import hashlib
import json
import os
import time
from pathlib import Path

from minisum import checkpoint
from minisum.errors import UserError
from train.run.options import FREE_ON_RESUME

# What every result.json has, for the report.
RESULT_NUMBERS = ("epochs", "parameters", "seconds", "tokens_per_second", "peak_memory_bytes")

# Seconds: a process that was killed a moment ago may still hold its lock.
LOCK_WAIT = 2.0


class RunFolder:
    def __init__(self, path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.tokenizer = self.path / checkpoint.TOKENIZER
        self.metrics = self.path / "metrics.jsonl"
        self.result = self.path / "result.json"
        self.best = self.path / checkpoint.BEST
        self.last = self.path / "last.safetensors"
        self.previous = self.path / "last.previous.safetensors"

    def __str__(self):
        return str(self.path)

    @contextlib.contextmanager
    def claimed(self):
        """Lock the folder for this process: a second run on it is refused.

        The lock is the operating system's and ends with the process, however that ends. A folder
        that was made here and got no file is removed again.
        """
        new = not self.path.exists()
        lock = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(lock, "a")  # noqa: SIM115 (held open: it is the lock)
        except OSError as error:
            raise UserError(f"cannot write to --out {self}: {error.strerror}") from None
        with file:
            if not lock_soon(file):
                raise UserError(f"another run is writing to {self} now: choose another --out")
            for leftover in self.path.glob("*.tmp"):  # of a process that was killed as it wrote
                leftover.unlink()
            try:
                yield self
            finally:
                if new and list(self.path.iterdir()) == [lock]:
                    lock.unlink()
                    self.path.rmdir()

    def refuse_if_used(self):
        """A new run must not write over an old one."""
        if self.config.exists():
            raise UserError(
                f"--out {self} holds a run already: add --resume to continue it, "
                "or choose another folder"
            )

    def write_json(self, path, content):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        # A file name that is not UTF-8 is written in JSON's own escapes.
        checkpoint.write_bytes(path, text.encode("utf-8", "backslashreplace"))

    def origin(self):
        """What a model in here depends on: the lasting settings, and the tokenizer's SHA-256."""
        settings, digest = {}, None
        if self.config.is_file():
            stored = json.loads(self.config.read_text(encoding="utf-8"))
            free = {"format", "ranks", *FREE_ON_RESUME}
            settings = {name: value for name, value in stored.items() if name not in free}
        if self.tokenizer.is_file():
            digest = hashlib.sha256(self.tokenizer.read_bytes()).hexdigest()
        return {"settings": settings, "tokenizer": digest}

    def require_origin(self, meta):
        """UserError if the checkpoint with this `meta` has other settings or another tokenizer.

        Shapes do not show it all: with another number of heads they are the same.
        """
        now = self.origin()
        then = meta.get("origin", now)
        for name, value in then["settings"].items():
            if (found := now["settings"].get(name)) != value:
                raise UserError(
                    f"the model in {self} is not the one that its config.json describes: it was "
                    f"trained with {name} {value}, not {found}"
                )
        if now["tokenizer"] and now["tokenizer"] != then["tokenizer"]:
            raise UserError(f"{self} holds a tokenizer that its model was not trained with")

    def write_metrics(self, history):
        """Write one line an epoch, all lines atomically: none is ever incomplete."""
        text = "".join(json.dumps(record) + "\n" for record in history)
        checkpoint.write_bytes(self.metrics, text.encode("utf-8"))

    def read_result(self):
        """The content of result.json, or None while the run is not finished or if it is damaged."""
        try:
            result = json.loads(self.result.read_text(encoding="utf-8"))
            whole = all(isinstance(result[name], (int, float)) for name in RESULT_NUMBERS)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return result if whole else None

    def newest_state(self, warn):
        """(arrays, meta) of the last checkpoint that is whole, or None if there is none yet."""
        damaged = None
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                state = checkpoint.load(path)
            except UserError as error:
                if damaged is not None:
                    raise UserError(f"{damaged}, and so is {path.name} before it") from None
                damaged = error
                continue
            if damaged is not None:
                warn(f"{damaged}; going back to the checkpoint before it")
                # Otherwise the next save would replace the good one by it.
                os.replace(self.last, self.path / "last.damaged.safetensors")
            return state
        if damaged is not None:
            raise damaged
        return None


def new_path(parent, name):
    """parent/name-YYYYmmdd-HHMMSS, counted on if it exists."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path(parent) / f"{name}-{stamp}"
    count = 1
    while path.exists():
        count += 1
        path = Path(parent) / f"{name}-{stamp}-{count}"
    return path


def lock_soon(file):
    """Take the lock of an open file now or within LOCK_WAIT; False if another holds it."""
    end = time.monotonic() + LOCK_WAIT
    while not (locked := try_lock(file)) and time.monotonic() < end:
        time.sleep(0.05)
    return locked


def try_lock(file):
    """Take the exclusive lock of an open file without waiting; False if another holds it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
