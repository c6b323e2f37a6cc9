"""One folder, one run; and what is written or deleted there is there, whatever links it holds."""

import ast
import os
import shutil
import sys
from pathlib import Path

import pytest
import tiny_runs

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from minisum import files
from minisum.errors import UserError
from train.reproduce import __main__ as reproduce
from train.run.cells import Cells
from train.run.folder import RunFolder

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="links and locks of POSIX")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(files, "LOCK_WAIT", 0.2)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@posix
def test_a_lock_that_another_run_has_removed_is_not_taken(tmp_path, monkeypatch):
    """It opens the file, the other one ends and removes it with its empty folder, then it locks."""
    folder, real, seen = tmp_path / "run", files.try_lock, []

    def try_lock(file):
        if not seen:
            seen.append(os.fstat(file.fileno()).st_ino)
            (folder / ".lock").unlink()
            folder.rmdir()
        return real(file)

    monkeypatch.setattr(files, "try_lock", try_lock)
    with files.claimed(folder):
        monkeypatch.undo()
        monkeypatch.setattr(files, "LOCK_WAIT", 0.0)
        assert (folder / ".lock").exists()
        with pytest.raises(UserError, match="another run"), files.claimed(folder):
            pass
    assert len(seen) == 1


@posix
def test_two_claims_of_a_removed_file_are_not_both_won(tmp_path, monkeypatch):
    """The file goes between one's opening and locking it, while a third has made it again."""
    folder, real, others = tmp_path / "run", files.try_lock, []

    def try_lock(file):
        monkeypatch.setattr(files, "try_lock", real)
        (folder / ".lock").unlink()
        others.append(files.taken(folder / ".lock"))  # of another, which works on
        return real(file)

    monkeypatch.setattr(files, "try_lock", try_lock)
    with pytest.raises(UserError, match="another run"), files.claimed(folder):
        pass
    assert others[0] is not None
    others[0].close()


def test_an_empty_folder_is_removed_and_a_used_one_stays(tmp_path):
    with files.claimed(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a" / "b").exists()
    with files.claimed(tmp_path / "c"):
        (tmp_path / "c" / "file").write_text("")
    assert (tmp_path / "c" / "file").exists()


@posix
def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    """Of the folder and its cells; nothing that a link leads to."""
    run, other = tmp_path / "run", tmp_path / "other"
    left = [run / "a.json.9.tmp", run / "cells" / "b.json.9.tmp"]
    kept = [run / "a.json", run / "cells" / "b.json", run / "runs" / "c.tmp", other / "d.tmp"]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    with files.claimed(run):
        assert not any(map(Path.exists, left)) and all(map(Path.exists, kept))
    shutil.rmtree(run / "cells")
    (run / "cells").symlink_to(other)
    with pytest.raises(UserError, match="is a link"), files.claimed(run):
        pass
    assert kept[-1].exists()


def tree(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@posix
@pytest.mark.parametrize("task", tiny_runs.TASKS)
def test_no_file_of_a_run_is_written_through_a_link(tmp_path, task):
    """Every file of a run is a link to one outside before it goes on."""
    data = tiny_runs.corpus(tmp_path, task)
    run, outside = tmp_path / "run", tmp_path / "outside"
    assert tiny_runs.train(task, data, run, "--epochs", 2) == 0
    shutil.copytree(run, outside)
    before = tree(outside)
    for path in outside.iterdir():
        if path.name != ".lock":
            (run / path.name).unlink()
            (run / path.name).symlink_to(path)
        (run / f"{path.name}.{os.getpid()}.tmp").symlink_to(path)
    assert tiny_runs.call(task, "--resume", "--out", run, "--epochs", 3) == 0
    assert tree(outside) == before
    assert not (run / "last.safetensors").is_symlink()
    assert not list(run.glob("*.tmp"))


@posix
def test_a_lock_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "outside").write_text("kept")
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="cannot write to --out"), files.claimed(tmp_path / "run"):
        pass
    assert (tmp_path / "outside").read_text() == "kept"


@posix
def test_folders_in_a_folder_are_not_links(tmp_path, capsys):
    """Of --mixer all, of a comparison and of a reproduction, which deletes checkpoints."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.safetensors").write_text("kept")
    before = tree(outside)
    for name in ("cells", "logs", "runs", "attention"):
        run = tmp_path / f"with {name}"
        run.mkdir()
        (run / name).symlink_to(outside)
        if name == "cells":
            with pytest.raises(UserError, match="is a link"):
                Cells(RunFolder(run), {}).keep("a", {})
        elif name == "attention":
            data = tiny_runs.corpus(tmp_path, "classifier")
            assert tiny_runs.train("classifier", data, run, "--mixer", "all") == 2
            assert "is a link" in capsys.readouterr().err
        else:
            flags = ["--quick", "--sets", "ag_news", "--mixers", "summation", "--out", str(run)]
            assert reproduce.main(flags) == 2
            assert "is a link" in capsys.readouterr().err
    assert tree(outside) == before


@posix
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "endless"])
def test_only_regular_files_are_read(tmp_path, kind):
    """Without waiting for a pipe's writer, and without taking in what never ends."""
    path = tmp_path / "a.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "endless" else "/dev/null")
    with pytest.raises(UserError, match="not a regular file"):
        files.read_json(path)


def test_files_are_written_in_one_place():
    """No other module opens a file for writing: none can follow a link or leave half a file."""
    allowed = {"minisum/files.py", "train/reproduce/__main__.py"}
    found = set()
    for room in ("minisum", "train", "data"):
        for path in (ROOT / room).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and writes(node):
                    found.add(name)
    assert found <= allowed, found - allowed


def writes(call):
    """Whether a call opens, makes or changes a file by what it is called."""
    name = getattr(call.func, "attr", getattr(call.func, "id", None))
    words = [a.value for a in call.args if isinstance(a, ast.Constant)]
    if name == "open" and not (isinstance(call.func, ast.Attribute) and call.func.value == "os"):
        return any(w in ("w", "wb", "a", "ab", "x", "xb", "r+", "rb+") for w in words)
    owner = getattr(getattr(call.func, "value", None), "id", None)
    if name in ("write_text", "write_bytes"):
        return isinstance(call.func, ast.Attribute) and owner != "files"
    return name == "savefig" and not any(getattr(a, "id", "") == "content" for a in call.args)
