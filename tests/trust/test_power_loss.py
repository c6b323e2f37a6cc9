"""The power fails: writes, renames and syncs of a run are recorded, and its crash states resumed.

What is certain after a crash is only what was synced: the content of a file by its own fsync, names
in a folder by the folder's. Of the names that changed since, any may have reached the disk; a file
that was not synced may be whole, empty or cut. Every such state of each moment must go on to the
bits of a run that was never stopped, or be a folder in which no run has begun.
"""

import itertools
import os
import shutil
import sys
from pathlib import Path

import pytest
import tiny_runs

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from minisum import files

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX only")


class Disk:
    """What a run does to a folder, and the states in which a crash can leave it.

    states: [{name: content}] of the moment, each {path relative to the root: bytes, None a folder}.
    """

    def __init__(self, root, monkeypatch):
        self.root, self.log, self.names = root, [], {}
        self.patch = monkeypatch
        for name in ("replace", "unlink", "fsync", "mkdir", "rmdir", "open"):
            monkeypatch.setattr(os, name, self.watched(name, getattr(os, name)))

    def watched(self, name, real):
        def call(*arguments, **options):
            found = real(*arguments, **options)
            if name == "fsync":
                path = Path(os.readlink(f"/proc/self/fd/{arguments[0]}"))
                content = path.read_bytes() if path.is_file() else None
                self.note("sync" if content is None else "write", path, content)
            elif name in ("replace", "unlink", "mkdir", "rmdir"):
                self.note(name, *map(Path, arguments[: 2 if name == "replace" else 1]))
            return found

        return call

    def note(self, what, path, *more):
        if Path(path).is_relative_to(self.root):
            self.log.append((what, Path(path), *more))


def states(log, moment, root):
    """The legal states after `moment` operations of the log: {path: content, None for a folder}."""
    disk, pending = {}, []  # what is certain; the changes of names that are not
    content = {}  # of temporary files, synced or not
    for what, path, *more in log[:moment]:
        if what == "write":
            content[path] = more[0]
            pending.append((path.parent, ("create", path, more[0])))
        elif what == "mkdir":
            pending.append((path.parent, ("create", path, None)))
        elif what == "replace":
            pending.append((more[0].parent, ("replace", path, more[0])))
        elif what in ("unlink", "rmdir"):
            pending.append((path.parent, ("remove", path)))
        elif what == "sync":
            for folder, change in pending:
                if folder == path:
                    apply(disk, change)
            pending = [(folder, change) for folder, change in pending if folder != path]
    changes = [change for _, change in pending]
    for chosen in itertools.product([False, True], repeat=min(len(changes), 6)):
        state = dict(disk)
        # Older changes than the last six have long been on their way.
        for change, taken in zip(changes, [True] * (len(changes) - 6) + list(chosen), strict=True):
            if taken:
                apply(state, change)
        yield {
            path: value for path, value in state.items()
            if all(parent in state for parent in path.parents if parent.is_relative_to(root)
                   and parent != root)
        }  # fmt: skip


def apply(state, change):
    what, path, *more = change
    if what == "create":
        state[path] = more[0]
    elif what == "replace" and path in state:
        state[more[0]] = state.pop(path)
    elif what == "remove":
        state.pop(path, None)


def restored(state, root, place):
    """The state as files in the folder `place`."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path, content in sorted(state.items()):
        target = place / path.relative_to(root)
        target.mkdir(exist_ok=True) if content is None else target.write_bytes(content)


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return tiny_runs.trained(tmp_path_factory.mktemp("straight"), "classifier")


def recorded(tmp_path, work):
    root = (tmp_path / "disk").resolve()
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(root, patch)
        assert work(root / "runs" / "a") == 0
    return root, disk.log


def test_every_crash_of_a_run_goes_on_to_its_bits(straight, tmp_path, no_pictures, capsys):
    data, _, three = straight
    slowly = ["--epochs", 2, "--save-every", 0]  # a checkpoint a step
    root, log = recorded(tmp_path, lambda out: tiny_runs.train("classifier", data, out, *slowly))
    assert [what for what, *_ in log].count("replace") >= 8
    tried, seen, begun = 0, set(), 0
    for moment in range(len(log) + 1):
        for state in states(log, moment, root):
            key = frozenset((path, value) for path, value in state.items() if path.suffix != ".tmp")
            if key in seen:
                continue
            seen.add(key)
            place = tmp_path / "after"
            restored(state, root, place)
            out, flags = place / "runs" / "a", ["--epochs", 3]
            if (out / "config.json").exists():
                begun += 1
                flags += ["--save-every", 60]
                status = tiny_runs.call("classifier", "--resume", "--out", out, *flags)
            else:
                status = tiny_runs.train("classifier", data, out, *flags)
            assert status == 0, (moment, sorted(state), capsys.readouterr().err)
            assert tiny_runs.state_of(out) == tiny_runs.state_of(three), (moment, sorted(state))
            assert not list(out.glob("*.tmp"))
            tried += 1
    assert tried >= 20 and begun >= 10


def test_a_finished_run_is_there_after_a_crash(straight, tmp_path, no_pictures):
    """When the command has ended, nothing of it can be lost: files, folder, nor its parents."""
    data = straight[0]
    root, log = recorded(
        tmp_path, lambda out: tiny_runs.train("classifier", data, out, "--epochs", 1)
    )
    (certain,) = {frozenset(state) for state in states(log, len(log), root)}
    kept = {path.name for path in certain if path.parent == root / "runs" / "a"}
    assert {"config.json", "result.json", "best.safetensors", "metrics.jsonl"} <= kept
    assert {root / "runs", root / "runs" / "a"} <= set(certain)


@pytest.mark.parametrize("lost", ["file", "folder"])
def test_the_replay_notices_a_missing_sync(straight, tmp_path, no_pictures, monkeypatch, lost):
    """Without the folder's sync, or with the rename before the file's, a state is lost."""
    if lost == "folder":
        monkeypatch.setattr(files, "sync_folder", lambda folder: None)
    root, log = recorded(
        tmp_path, lambda out: tiny_runs.train("classifier", straight[0], out, "--epochs", 1)
    )
    if lost == "file":
        log = [entry for entry in log if entry[0] != "write"]
    ends = [{path.name for path in state} for state in states(log, len(log), root)]
    assert not all("result.json" in names for names in ends)
