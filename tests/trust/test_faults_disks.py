"""Disks that are full, too small or read-only, two writers in one folder, and odd paths.

Whatever happens, a run ends with the bits of an undisturbed one, or with one sentence and status 2.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
from ranks import wait_for

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="mounts of Linux")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The classifier's data, a run of two epochs, one of three."""
    return tiny_runs.trained(tmp_path_factory.mktemp("classifier"), "classifier")


def child(task, *arguments, wrapper=(), **options):
    command = [*wrapper, sys.executable, "-m", f"train.{task}", *(str(a) for a in arguments)]
    options = {"capture_output": True, "text": True, "timeout": 60} | options
    return subprocess.run(command, cwd=ROOT, **options)


def flags_of(data, out):
    return ["--data", data, *tiny_runs.COMMON, *tiny_runs.SMALL["classifier"], "--out", out]


def test_two_processes_on_one_folder(runs, tmp_path):
    """The second is refused while the first runs, and is welcome when the first was killed."""
    data = runs[0]
    out = tmp_path / "run"
    long = [*flags_of(data, out), "--epochs", "100000", "--patience", "0"]
    command = [sys.executable, "-m", "train.classifier", *(str(a) for a in long)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, **quiet) as first:
        wait_for(lambda: (out / "last.safetensors").exists() or first.poll() is not None)
        for flags in (flags_of(data, out), ["--resume", "--out", out]):
            second = child("classifier", *flags)
            assert second.returncode == 2, second.stderr
            assert second.stderr.startswith(f"error: another run is writing to {out} now")
        assert first.poll() is None
        first.kill()
    again = child("classifier", "--resume", "--out", out, "--epochs", "3")
    assert "already" in again.stderr or again.returncode == 0, again.stderr


def mounted(options, script):
    """A command that runs `script` where $0 is a tmpfs of its own, or skips where none can be."""
    for unshare in (["unshare", "-m"], ["unshare", "-rm"]):
        try:
            probe = [*unshare, "sh", "-c", "mount -t tmpfs none /mnt"]
            if subprocess.run(probe, capture_output=True).returncode == 0:
                break
        except OSError:
            continue
    else:
        pytest.skip("no tmpfs can be mounted here")
    return [*unshare, "sh", "-c", f'mount -t tmpfs -o {options} none "$0" && {script}']


@linux
def test_a_full_disk_then_a_larger_one(runs, tmp_path):
    """A disk of 192 KiB that another file fills up in the middle, and then has room again."""
    data, _, three = runs
    disk = tmp_path / "disk"
    disk.mkdir()
    script = """
        "$@" --epochs 2 >&2 || exit 3
        cp "$0"/run/last.safetensors "$0"/../before
        head -c 10000000 /dev/zero > "$0/filler" 2>/dev/null
        "$@" --resume --epochs 3; echo status $?
        cmp "$0"/run/last.safetensors "$0"/../before || exit 4
        ls "$0"/run | grep tmp && exit 5
        rm "$0/filler"
        "$@" --resume --epochs 3 >&2 || exit 6
        cp -r "$0/run" "$0/../kept"
    """
    flags = flags_of(data, disk / "run")
    shown = child("classifier", *flags, wrapper=[*mounted("size=192k", script), str(disk)])
    assert shown.returncode == 0, (shown.returncode, shown.stdout, shown.stderr)
    assert "status 2" in shown.stdout
    sentences = [line for line in shown.stderr.splitlines() if line.startswith("error")]
    assert len(sentences) == 1 and "No space left on device" in sentences[0], shown.stderr
    assert "Traceback" not in shown.stderr
    assert tiny_runs.state_of(tmp_path / "kept") == tiny_runs.state_of(three)


@linux
def test_a_disk_that_is_too_small_from_the_start(runs, tmp_path):
    data = runs[0]
    disk = tmp_path / "disk"
    disk.mkdir()
    for size in ("8k", "20k"):
        flags = flags_of(data, disk / "run")
        wrapper = [*mounted(f"size={size}", '"$@"'), str(disk)]
        shown = child("classifier", *flags, wrapper=wrapper)
        assert shown.returncode == 2, (shown.stdout, shown.stderr)
        assert len(shown.stderr.splitlines()) == 1, shown.stderr
        assert "cannot write" in shown.stderr and "No space left" in shown.stderr, shown.stderr


@linux
def test_a_read_only_disk(runs, tmp_path):
    """Nothing can be trained or continued there; what is there can still answer."""
    data, two, _ = runs
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'cp -r "{two}" "$0/run" && mount -o remount,bind,ro "$0" && "$@"'
    wrapper = [*mounted("size=1m", script), str(disk)]
    for flags in (flags_of(data, disk / "new"), ["--resume", "--out", disk / "run"]):
        shown = child("classifier", *flags, wrapper=wrapper)
        assert shown.returncode == 2 and len(shown.stderr.splitlines()) == 1, shown.stderr
        assert shown.stderr.startswith("error: cannot write to --out"), shown.stderr
    shown = child("classifier", "--predict", disk / "run", wrapper=wrapper, input="a meow\n")
    assert (shown.returncode, shown.stderr) == (0, "") and shown.stdout.count("\n") == 1


@linux
def test_no_room_for_the_tokenizer(tmp_path):
    data = tmp_path / "rows.jsonl"
    rows = [{"text": f"word{i} other{i}", "label": "ab"[i % 2]} for i in range(400)]
    data.write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "disk").mkdir()
    out = tmp_path / "disk" / "run"
    wrapper = [*mounted("size=4k", '"$@"'), str(tmp_path / "disk")]
    shown = child("classifier", *flags_of(data, out), wrapper=wrapper)
    assert shown.returncode == 2
    sentence = f"error: cannot write {out / 'tokenizer.json'}: No space left on device\n"
    assert shown.stderr == sentence


@linux
def test_a_file_name_that_is_not_text(tmp_path):
    """Bytes that are not UTF-8 are legal in a name, and the run goes on from them."""
    good = tiny_runs.corpus(tmp_path, "classifier")
    data = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    try:
        shutil.copy(good, data)
    except OSError:
        pytest.skip("this file system wants UTF-8")
    out = tmp_path / "run"
    data = os.fsdecode(data)
    assert tiny_runs.train("classifier", data, out, "--epochs", 2) == 0
    assert tiny_runs.call("classifier", "--resume", "--out", out, "--epochs", 3) == 0
    assert json.loads((out / "config.json").read_text())["data"] == data


@linux
def test_paths_that_lead_nowhere(capsys, tmp_path):
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    for path in ("~nosuchuser/a.csv", loop, loop / "a.csv", tmp_path / ("a" * 300 + ".csv"), "/"):
        assert tiny_runs.call("classifier", "--data", path, "--out", tmp_path / "run") == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert not (tmp_path / "run").exists()
