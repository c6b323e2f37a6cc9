"""The folder of a run: who may write to it, and the files in it.

- config.json: the settings, the task and the hash of the data
- tokenizer.json: how texts become token numbers, where the task has texts
- metrics.jsonl: a line an epoch, and those that --log-every and --eval-every ask for
- curves.svg: its losses and metrics, drawn at the end
- result.json: the test metrics, written once at the end
- best.safetensors: the parameters of the best epoch, by name
- last.safetensors: the whole state of training, for --resume; dropped at the end of a run
- last.previous.safetensors: the one before it, should the last be damaged
"""

import contextlib
import datetime
import hashlib
import math
import os
from pathlib import Path

from minisum import checkpoint, files
from minisum.errors import UserError
from train.run.options import FREE_ON_RESUME

# What every result.json has, for the report.
RESULT_NUMBERS = ("epochs", "parameters", "seconds", "tokens_per_second", "peak_memory_bytes")


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
        with files.claimed(self.path):
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
            free = {"format", "ranks", "arithmetic", *FREE_ON_RESUME}
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
        for name in then["settings"].keys() - FREE_ON_RESUME:
            value = then["settings"][name]
            if (found := now["settings"].get(name)) != value:
                raise UserError(
                    f"the model in {self} is not the one that its config.json describes: it was "
                    f"trained with {name} {value}, not {found}"
                )
        if now["tokenizer"] and now["tokenizer"] != then["tokenizer"]:
            raise UserError(f"{self} holds a tokenizer that its model was not trained with")

    def write_metrics(self, records):
        """Write one line a record, all lines atomically: none is ever incomplete."""
        files.write_lines(self.metrics, records)

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
