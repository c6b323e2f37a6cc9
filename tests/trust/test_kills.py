"""Killed at any moment, and called again: every command that writes ends with the same bits.

MINISUM_KILLS=N kills N times in all, MINISUM_SEED=K at other moments, MINISUM_KILLED=a,b these
commands only. With MINISUM_TEST_BACKEND=cupy training is on a GPU, whose sums differ in their last
bits from call to call: there the losses agree.
"""

import contextlib
import json
import os
import random
import signal
import time
import uuid

import killing
import numpy as np
import pytest
import tiny_runs
from conftest import XP
from ranks import linux, processes_of, wait_for

from minisum import checkpoint

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

pytestmark = linux

KILLS = int(os.environ.get("MINISUM_KILLS", "8"))
SEED = int(os.environ.get("MINISUM_SEED", "5"))
TIMES = ("seconds", "per_second", "memory_bytes", "sha256", "speed", "command")
ON_HOST = XP is np
BACKEND = [] if ON_HOST else ["--backend", "cupy"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the corpora, two finished runs, and the sets of train.reproduce."""
    folder = tmp_path_factory.mktemp("place")
    for task in tiny_runs.TASKS:
        (folder / task).mkdir()
        tiny_runs.corpus(folder / task, task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_runs.sys.modules, "matplotlib.figure", None)
        data = data_of(folder, "classifier")
        assert tiny_runs.train("classifier", data, folder / "done") == 0
    rows = [f"word{i % 7} word{i % 5} topic{i % 4},{i % 4}" for i in range(80)]
    (folder / "ag_news").mkdir()
    for split in ("train", "test"):
        path = folder / "ag_news" / f"{split}.csv"
        path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return folder


def data_of(place, task):
    (path,) = (place / task).glob("*.*")
    return path


def commands(place):
    """name -> the words of a command that lacks its --out."""
    every_step = ["--save-every", 0, *BACKEND]
    found = {
        task: [f"train.{task}", "--data", data_of(place, task), *tiny_runs.COMMON,
               *tiny_runs.SMALL[task], *every_step]
        for task in tiny_runs.TASKS
    }  # fmt: skip
    found["mixers"] = [*found["classifier"], "--mixer", "all"]
    found["launch"] = ["train.launch", "--ranks", 2, *found["classifier"]]
    found["compare"] = ["train.compare", "--width", 8, "--heads", 2, "--steps", 4, "--seeds", 2,
                        "--test-size", 40, *BACKEND]  # fmt: skip
    found["icl"] = ["train.icl", "--forms", "head,gd", "--noise", "1,2", "--layers", "1,2",
                    "--seeds", 2, "--steps", 4, "--batch-size", 4, "--test-size", 50,
                    *BACKEND]  # fmt: skip
    found["reproduce"] = ["train.reproduce", "--sets", "ag_news", "--seeds", 1, "--quick",
                          "--mixers", "summation,attention", "--protocols", "published",
                          "--jobs", 2, *BACKEND]  # fmt: skip
    found["analyze"] = ["train.analyze", place / "done", "--texts", 8]
    found["page"] = ["train.page", place / "done"]
    return found


def next_call(name, words, out):
    """The command that begins, or goes on with, what is in `out`."""
    if name == "page":
        return [*words, "--out", out / "page.html"]
    begun = (out / "config.json").exists() or (name == "mixers" and list(out.glob("*/config.json")))
    if name in (*tiny_runs.TASKS, "mixers", "launch") and begun:
        words = words[: words.index("--data")]
        return [*words, "--resume", "--out", out, *BACKEND]
    return [*words, "--out", out]


def record_of(out):
    """What a command has left, times apart: values of JSON, bytes of arrays, names of the rest."""

    def untimed(value):
        if isinstance(value, dict):
            kept = {key: part for key, part in value.items() if not key.endswith(TIMES)}
            return {key: untimed(part) for key, part in kept.items()}
        return [untimed(part) for part in value] if isinstance(value, list) else value

    found = {}
    for path in out.rglob("*"):
        name = str(path.relative_to(out))
        if not path.is_file() or path.suffix in (".tmp", ".log") or "previous" in name:
            continue
        found[name] = None
        if path.suffix == ".safetensors":
            arrays, _ = checkpoint.load(path)
            found[name] = {key: array.tobytes() for key, array in arrays.items()}
        elif path.suffix == ".json":
            found[name] = untimed(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = [untimed(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix == ".html":
            found[name] = path.read_bytes()
    return found


def ended(process, tag, seconds=60):
    """The exit status, once nothing of the command is left."""
    process.join(seconds)
    wait_for(lambda: not processes_of(tag))
    return process.exitcode


def begin(name, words, out, place, tag):
    environment = {"MINISUM_DATA": str(place), "HF_HUB_OFFLINE": "1", "MINISUM_RUN": tag}
    return killing.start(next_call(name, words, out), place / f"{tag}.err", environment)


def test_killed_again_and_again(place, tmp_path):
    rng = random.Random(SEED)
    every = commands(place)
    # A few kills: of one process, since others are tested in test_processes.py.
    few = [name for name in every if name not in ("launch", "reproduce")]
    named = os.environ.get("MINISUM_KILLED")
    chosen = named.split(",") if named else list(every) if KILLS > 20 else few
    straight, seconds, kills = {}, {}, dict.fromkeys(chosen, 0)
    runs = 0
    while sum(kills.values()) < KILLS:
        name = chosen[runs % len(chosen)]
        tag = f"{uuid.uuid4()}"
        if name not in straight:
            out = tmp_path / f"{name} straight"
            out.mkdir()
            began = time.monotonic()
            assert ended(begin(name, every[name], out, place, tag), tag) == 0, said(place, tag)
            seconds[name] = time.monotonic() - began
            straight[name] = record_of(out)
        out = tmp_path / f"{name} {runs}"
        out.mkdir()
        runs += 1
        while True:
            tag = f"{uuid.uuid4()}"
            process = begin(name, every[name], out, place, tag)
            process.join(rng.uniform(0, seconds[name]))
            alive = process.exitcode is None
            if alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice([process.pid, *processes_of(tag)]), signal.SIGKILL)
            status = ended(process, tag)
            words = said(place, tag)
            assert "Traceback" not in words, words
            if status == 0 and not alive:
                break
            kills[name] += alive
            assert alive, (name, status, words)
        # Who holds no lock on a folder clears up nothing there.
        assert not list(out.rglob("*.tmp")) or name in ("analyze", "page"), name
        assert_same(record_of(out), straight[name], name)
        print(f"{sum(kills.values())} kills in {runs} runs: {kills}", flush=True)


def said(place, tag):
    path = place / f"{tag}.err"
    return path.read_text() if path.exists() else ""


def assert_same(found, expected, name):
    assert set(found) == set(expected), (name, set(found) ^ set(expected))
    for file in expected:
        if ON_HOST:
            assert found[file] == expected[file], (name, file)
        else:
            pairs = (list(losses(record[file])) for record in (found, expected))
            assert next(pairs) == pytest.approx(next(pairs), rel=1e-5), (name, file)


def losses(value):
    """The numbers called ...loss in nested dicts and lists."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, part in value.items() if isinstance(value, dict) else ():
        if str(key).endswith("loss"):
            yield part
        yield from losses(part)
