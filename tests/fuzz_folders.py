"""Strangers' folders, made by one who knows the formats: python tests/fuzz_folders.py 1000 [SEED]

Parts of a good run are exchanged for odd ones, and every checksum is made to match again: sizes,
types, names, shapes and dtypes of arrays, the position of training, the tokenizer, the settings;
some files become links, pipes or devices. Loading, predicting and going on must each end with an
answer or one sentence, within SECONDS of the processor (ten times as many on the clock, for what
waits), MEMORY bytes more than before, and touch nothing outside.
"""

import contextlib
import copy
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "support")]
sys.modules["matplotlib"] = None  # pictures take most of a small run's time

import tiny_runs  # noqa: E402

import minisum  # noqa: E402
from minisum import checkpoint, files  # noqa: E402
from minisum.errors import UserError  # noqa: E402
from train import causal  # noqa: E402

MEMORY, SECONDS = 1 << 30, 10
ODD = [
    None, True, False, 0, 1, -1, 2, 3, 7, 1024, 2**16, 2**24, 2**31, 2**63, 10**30, 10**400, 0.5,
    -0.0, 1e308, float("nan"), float("inf"), "", "a", "0", "..", "/etc/passwd", "\x1b[2J", "\u202e",
    "x" * 10_000, "attention*1024", "attention*1024," * 99, "summation,", "deltanet:conv=99999999",
    "deltaproduct:steps=999999999", "projection*1000000000", [], {}, [[]], [None], ["a"] * 1000,
    [1.5] * 1000, {"a": 1}, {"layers": 10**9}, {"__class__": 1}, [0] * 10_000,
]  # fmt: skip
DTYPES = ["f4", "f8", "f2", "i4", "i8", "u1", "?"]


def spots(tree, path=()):
    """The paths of all values in nested dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from spots(value, (*path, key))


def change(rng, tree):
    """`tree` with a few of its values exchanged, left out, doubled, renamed or moved."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        places = list(spots(tree))
        if not places:
            return tree
        *path, last = rng.choice(places)
        parent = tree
        for key in path:
            parent = parent[key]
        kind = rng.randrange(8)
        if kind == 0:
            del parent[last]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(["x", "kind", "width", "solution", "tokenizer"])] = parent.pop(last)
        elif kind == 2 and type(parent[last]) is int:
            parent[last] += rng.choice([-1, 1, 10, 1000])
        elif kind == 3 and isinstance(parent[last], list) and len(parent[last]) < 1000:
            parent[last] = parent[last] * rng.choice([2, 50])
        else:
            parent[last] = copy.deepcopy(rng.choice(ODD))
    return tree


def change_arrays(rng, arrays):
    arrays = dict(arrays)
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    kind = rng.randrange(7)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[rng.choice(["x", "", "a.b.c", "best", "\x1b", "m" * 999])] = arrays.pop(name)
    elif kind == 2:
        with np.errstate(all="ignore"):
            arrays[name] = array.astype(rng.choice(DTYPES))
    elif kind == 3:
        arrays[name] = array.reshape(rng.choice([(-1,), (1, -1), (-1, 1)]))
    elif kind == 4:
        arrays[name] = array[: rng.randrange(len(array) + 1)] if array.ndim else array
    elif kind == 5:
        arrays[name] = np.zeros(rng.choice([(0,), (), (3, 0, 2), (10_000,)]), array.dtype)
    else:
        arrays[name] = np.full(array.shape, rng.choice([np.nan, np.inf, 3e38]), array.dtype)
    return arrays


def odd_file(rng, path, outside):
    """Another kind of thing in the place of a file."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    kind = rng.randrange(7)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        path.symlink_to(outside)
    elif kind == 3:
        path.mkdir()
    elif kind == 4:
        path.symlink_to(path)
    elif kind == 5:
        path.write_bytes(rng.choice([b"[" * 100_000, b'{"a":' * 100_000, b"", b"\0" * 9]))
    else:
        with open(path, "wb") as file:
            file.truncate(1 << 33)


def craft(rng, out, outside):
    """Change the run in `out`; what was changed, in words."""
    names = ["best", "best", "best", "last", "last", "config", "tokenizer", "result", "odd"]
    done = []
    for name in rng.choices(names, k=rng.choice([1, 1, 2])):
        path = out / (f"{name}.safetensors" if name in ("best", "last") else f"{name}.json")
        if name == "odd":
            path = rng.choice(sorted(path for path in out.iterdir() if path.name != ".lock"))
            odd_file(rng, path, outside)
        elif not path.is_file() or path.is_symlink():
            continue
        elif name in ("best", "last"):
            try:
                arrays, meta = checkpoint.load(path)
            except UserError:
                continue
            meta = change(rng, meta) if rng.random() < 0.7 else meta
            arrays = change_arrays(rng, arrays) if rng.random() < 0.4 else arrays
            with contextlib.suppress(Exception):  # the library refuses to write some
                checkpoint.save(path, arrays, meta)
        elif name == "tokenizer":
            with contextlib.suppress(ValueError, RecursionError, MemoryError):  # an odd file by now
                path.write_text(json.dumps(change(rng, json.loads(path.read_bytes()))))
                follow(out, path)
        else:
            with contextlib.suppress(ValueError):
                files.write_json(path, change(rng, files.read_json(path)), sealed=True)
        done.append(path.name)
    return done


def follow(out, path):
    """Let best.safetensors name the tokenizer that is there now."""
    import hashlib

    with contextlib.suppress(UserError, KeyError, TypeError):
        arrays, meta = checkpoint.load(out / "best.safetensors")
        meta["origin"]["tokenizer"] = hashlib.sha256(path.read_bytes()).hexdigest()
        checkpoint.save(out / "best.safetensors", arrays, meta)


def use(task, kind, out, data):
    """Status of one use of the folder."""
    if kind == "load":
        try:
            run = minisum.load(out)
        except UserError as error:
            assert "\x1b" not in str(error)
            return 2
        if task == "classifier":
            run.predict(["small cat meow", ""])
        elif task == "causal":
            run.generate("a", 2)
        return 0
    sys.stdin = io.TextIOWrapper(io.BytesIO(data.read_bytes()))
    if kind == "predict" and task == "causal":
        return causal.main(["--generate", "a", "--out", str(out), "--tokens", "3"])
    flags = ["--predict", out] if kind == "predict" else ["--resume", "--out", out, "--epochs", 3]
    return tiny_runs.call(task, *flags)


class TooLong(BaseException):
    """No OSError, as TimeoutError is: a command would turn that into a sentence."""


def hang(number, frame):
    raise TooLong


def fuzz(count, seed, stderr):
    rng, defects, statuses, longest = random.Random(seed), [], {}, 0.0
    timers = {signal.ITIMER_PROF: SECONDS, signal.ITIMER_REAL: 10 * SECONDS}
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, hang)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outside = folder / "outside.json"
        runs = {}
        for task in tiny_runs.TASKS:
            (folder / task).mkdir()
            data = tiny_runs.corpus(folder / task, task)
            sys.stdout = io.TextIOWrapper(io.BytesIO())
            assert tiny_runs.train(task, data, folder / task / "run", "--epochs", 2) == 0
            runs[task] = data, folder / task / "run"
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        outside.write_text("kept")
        for number in range(count):
            task = rng.choice(tiny_runs.TASKS)
            data, run = runs[task]
            out = folder / "stranger"
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(run, out)
            what = craft(rng, out, outside)
            for kind in rng.sample(["load", "predict", "resume"], 2):
                sys.stdout = io.TextIOWrapper(io.BytesIO())
                sys.stderr = io.TextIOWrapper(io.BytesIO())
                began, trace = time.monotonic(), ""
                for timer, seconds in timers.items():
                    signal.setitimer(timer, seconds)
                try:
                    with warnings.catch_warnings(action="ignore"):
                        status = use(task, kind, out, data)
                except BaseException:
                    status, trace = None, traceback.format_exc()
                for timer in timers:
                    signal.setitimer(timer, 0)
                seconds = time.monotonic() - began
                longest = max(longest, seconds)
                sys.stderr.flush()
                said = sys.stderr.buffer.getvalue().decode(errors="replace")
                statuses[status] = statuses.get(status, 0) + 1
                touched = outside.read_text() != "kept" or len(os.listdir(folder)) > 6
                if status not in (0, 2) or touched or "\x1b" in said:
                    defects.append((number, task, kind, what, status, said[-300:], trace[-1800:]))
                    print("---", *defects[-1][:5], said[-300:], trace[-1800:], file=stderr)
    return defects, statuses, longest


def main(count, seed=0):
    stdout, stderr = sys.stdout, sys.stderr
    try:
        defects, statuses, longest = fuzz(count, seed, stderr)
    finally:
        sys.stdout, sys.stderr = stdout, stderr
    print(f"{count} folders, {statuses}, longest {longest:.1f} s, {len(defects)} defects")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
