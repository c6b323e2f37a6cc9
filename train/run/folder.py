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
import math
import os
import time
from pathlib import Path

from minisum import checkpoint, files
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
        """Lock the folder for this process: a second run on it is refused."""
        with claimed(self.path):
            yield self

    def refuse_if_used(self):
        """A new run must not write over an old one."""
        if self.config.exists():
            raise UserError(
                f"--out {self} holds a run already: add --resume to continue it, "
                "or choose another folder"
            )

    def origin(self):
        """What a model in here depends on: the lasting settings, and the tokenizer's SHA-256."""
        settings, digest = {}, None
        if self.config.is_file():
            stored = files.read_json(self.config)
            free = {"format", "ranks", *FREE_ON_RESUME}
            settings = {name: value for name, value in stored.items() if name not in free}
        if self.tokenizer.is_file():
            content = files.read_bytes(self.tokenizer, checkpoint.TOKENIZER_BYTES)
            digest = hashlib.sha256(content).hexdigest()
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
        text = "".join(json.dumps(files.finite(record)) + "\n" for record in history)
        files.write_text(self.metrics, text)

    def read_result(self):
        """The content of result.json, or None while the run is not finished or if it is damaged.

        A number that JSON does not have is null in the file and NaN here.
        """
        try:
            result = files.read_json(self.result)
        except (OSError, UserError):
            return None
        if not all(isinstance(result.get(name), (int, float)) for name in RESULT_NUMBERS):
            return None
        return {name: math.nan if value is None else value for name, value in result.items()}

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


@contextlib.contextmanager
def claimed(folder):
    """Hold the lock of `folder`, made if it is missing, for this process.

    UserError if another process has it, or if it cannot be written. A folder that was made here and
    got no file is removed again.
    """
    new = not folder.exists()
    path = folder / ".lock"
    try:
        file = taken(path)
    except OSError as error:
        raise UserError(f"cannot write to --out {folder}: {error.strerror}") from None
    if file is None:
        raise UserError(f"another run is writing to {folder} now: choose another --out")
    with file:
        for leftover in folder.glob("*.tmp"):  # of a process that was killed as it wrote
            leftover.unlink()
        try:
            yield
        finally:
            if new and list(folder.iterdir()) == [path]:
                path.unlink()  # while it is held: whoever opened it before notices
                with contextlib.suppress(OSError):  # another has just put its own there
                    folder.rmdir()


def taken(path):
    """The locked file at `path`, None if another process holds it for longer than LOCK_WAIT."""
    end = time.monotonic() + LOCK_WAIT
    while True:
        with contextlib.suppress(FileNotFoundError):  # the folder was removed in between
            files.make_folder(path.parent)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            file = os.fdopen(os.open(path, flags, 0o666), "rb+", buffering=0)
            if try_lock(file) and is_at(path, file):
                return file
            file.close()
        if time.monotonic() > end:
            return None
        time.sleep(0.05)


def is_at(path, file):
    """Whether the open file is the one at `path`: a lock on a removed file excludes nobody."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


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


def inside(folder, *names):
    """folder/name/..., the last of which need not exist. UserError if one of them is a link.

    What is written or deleted there would be somewhere else.
    """
    path = Path(folder)
    for name in names:
        path = path / name
        if path.is_symlink():
            raise UserError(f"{path} is a link, which no run makes: it is not followed")
    return path
