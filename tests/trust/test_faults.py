"""Faults that do happen to a run's files: damage, loss, changed data, a death, a wrong clock.

Whatever happens, a run ends with the bits of an undisturbed one, or with one sentence and status 2.
MINISUM_FAULTS=N tries N random damages where the default suite tries a few.
"""

import contextlib
import io
import json
import os
import random
import shutil
import sys
import time

import pytest
import tiny_runs
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from minisum import checkpoint
from minisum.errors import UserError

TRIES = int(os.environ.get("MINISUM_FAULTS", "24"))


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes most of a small run's time."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """task -> (data, a run of two epochs, one of three)."""
    return {
        task: tiny_runs.trained(tmp_path_factory.mktemp(task), task) for task in tiny_runs.TASKS
    }


def copied(run, folder):
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(run, out)
    return out


AGAIN = "note: the test set is used again, after epoch 2 already"


def resume(capsys, out, task="classifier"):
    """(status, lines on standard error but for AGAIN) of going on to three epochs."""
    capsys.readouterr()
    status = tiny_runs.call(task, "--resume", "--out", out, "--epochs", 3)
    return status, [line for line in capsys.readouterr().err.splitlines() if line != AGAIN]


@st.composite
def damages(draw):
    """A function from the bytes of a file to other bytes."""
    kind = draw(st.sampled_from(["flip", "cut", "zeros", "noise", "empty", "tail"]))
    place, seed = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 2**32))

    def damage(content):
        rng, at = random.Random(seed), int(place * len(content))
        changed = bytearray(content)
        if kind == "flip":
            for position in [at, *rng.choices(range(len(content)), k=rng.choice([0, 0, 1, 5]))]:
                changed[position] ^= 1 << rng.randrange(8)
        elif kind in ("zeros", "noise"):  # as a block that never reached the disk
            size = min(len(content) - at, rng.choice([1, 7, 512, 4096]))
            changed[at : at + size] = bytes(size) if kind == "zeros" else rng.randbytes(size)
        elif kind == "tail":
            changed += rng.randbytes(rng.choice([1, 100]))
        else:
            changed = changed[: at if kind == "cut" else 0]
        return bytes(changed)

    damage.__name__ = f"{kind} at {place:.3f}, seed {seed}"
    return damage


@settings(max_examples=TRIES)
@given(damage=damages())
def test_a_damaged_checkpoint_costs_an_epoch_and_no_more(capsys, runs, tmp_path, damage):
    _, two, three = runs["classifier"]
    out = copied(two, tmp_path)
    last = out / "last.safetensors"
    content = last.read_bytes()
    last.write_bytes(damage(content))
    try:
        checkpoint.load(last)
        known = True  # the damage was none, as zeros over zeros
    except UserError:
        known = False
    status, errors = resume(capsys, out)
    assert status == 0, errors
    assert known or (len(errors) == 1 and "going back to the checkpoint before" in errors[0])
    assert tiny_runs.state_of(out) == tiny_runs.state_of(three)


@settings(max_examples=max(10, TRIES // 4))
@given(first=damages(), second=damages())
def test_two_damaged_checkpoints_are_refused(capsys, runs, tmp_path, first, second):
    out = copied(runs["classifier"][1], tmp_path)
    left = []
    for name, damage in (("last", first), ("last.previous", second)):
        path = out / f"{name}.safetensors"
        path.write_bytes(damage(path.read_bytes()))
        with contextlib.suppress(UserError):
            left.append(checkpoint.load(path))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    status, errors = resume(capsys, out)
    if left:
        assert status == 0, errors
        return
    assert status == 2 and errors[-1].startswith("error: the checkpoint"), errors
    assert not any("Traceback" in line for line in errors)
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    for name in ("last.safetensors", "last.previous.safetensors", "best.safetensors"):
        assert after[name] == before[name]


class Killed(BaseException):
    """The process ended here."""


def killed_at(monkeypatch, number, before):
    """Let the process die just before, or just after, its `number`-th renaming of a file."""
    rename, count = os.replace, iter(range(10**6))

    def replace(source, target):
        now = next(count) == number
        if now and before:
            raise Killed
        rename(source, target)
        if now:
            raise Killed

    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("damaged", [None, "last", "last.previous"])
def test_death_at_any_renaming_while_one_checkpoint_is_damaged(
    capsys, runs, tmp_path, monkeypatch, damaged, before
):
    """Going on must never put the only good checkpoint at risk."""
    _, two, three = runs["classifier"]
    deaths = 0
    while True:
        out = copied(two, tmp_path)
        if damaged:
            path = out / f"{damaged}.safetensors"
            path.write_bytes(path.read_bytes()[:-9])
        with monkeypatch.context() as patch:
            killed_at(patch, deaths, before)
            try:
                status, errors = resume(capsys, out)
            except Killed:
                status = None
        if status is not None:
            break
        deaths += 1
        status, errors = resume(capsys, out)
        assert status == 0, errors
        assert tiny_runs.state_of(out) == tiny_runs.state_of(three), deaths
    assert status == 0 and deaths >= 4, errors


@pytest.mark.parametrize("task", tiny_runs.TASKS)
@settings(max_examples=max(8, TRIES // 3))
@given(data=st.data())
def test_any_damaged_file_of_a_run(capsys, runs, tmp_path, monkeypatch, task, data):
    """Going on and predicting end with status 0 or with one sentence and 2: never a traceback."""
    out = copied(runs[task][data.draw(st.sampled_from([1, 2]))], tmp_path)
    name = data.draw(st.sampled_from(sorted(path.name for path in out.iterdir())))
    change = data.draw(st.sampled_from(["damage"] * 4 + ["remove", "folder", "swap"]))
    path = out / name
    content = path.read_bytes()
    path.unlink()
    if change == "damage" and content:
        path.write_bytes(data.draw(damages())(content))
    elif change == "folder":
        path.mkdir()
    elif change == "swap":
        other = data.draw(st.sampled_from(sorted(path.name for path in out.iterdir())))
        shutil.copy(out / other, path)
    for status, errors in used(capsys, monkeypatch, task, runs[task][0], out):
        assert status in (0, 2)
        assert "Traceback" not in errors
        assert all(line.startswith(("error: ", "note: ")) for line in errors.splitlines()), errors


def used(capsys, monkeypatch, task, data, out):
    """(status, standard error) of predicting for its own data, and then of going on."""
    predicting = ["--predict", out]
    if task == "causal":
        predicting = ["--generate", "a", "--out", out, "--tokens", 3]
    for flags in (predicting, ["--resume", "--out", out, "--epochs", 3]):
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data.read_bytes())))
        yield answers(task, flags), capsys.readouterr().err


def answers(task, flags):
    if flags[0] == "--generate":
        from train.causal import main

        return main([str(flag) for flag in flags])
    return tiny_runs.call(task, *flags)


def test_times_of_files_and_clocks_decide_nothing(capsys, runs, tmp_path, monkeypatch):
    """The clock jumps back a year, and the files come from the future in the wrong order."""
    _, two, three = runs["classifier"]
    out = copied(two, tmp_path)
    now = time.time()
    for days, name in enumerate(["last.safetensors", "config.json", "last.previous.safetensors"]):
        os.utime(out / name, (now + 1e6 * days, now + 1e6 * days))
    backwards = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(backwards)))
    status, errors = resume(capsys, out)
    assert (status, errors) == (0, [])
    assert tiny_runs.state_of(out) == tiny_runs.state_of(three)


@pytest.mark.parametrize("task", tiny_runs.TASKS)
def test_changed_data_is_refused_by_every_command(capsys, tmp_path, task):
    data = tiny_runs.corpus(tmp_path, task)
    out = tmp_path / "run"
    assert tiny_runs.train(task, data, out, "--epochs", 2) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    content = data.read_bytes()
    data.write_bytes(content.replace(b"7", b"8", 1))
    status, errors = resume(capsys, out, task)
    assert status == 2 and len(errors) == 1 and "has changed" in errors[0]
    data.unlink()
    status, errors = resume(capsys, out, task)
    assert status == 2 and len(errors) == 1 and "is not there any more" in errors[0]
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    data.write_bytes(content)
    assert resume(capsys, out, task) == (0, [])


WORTHLESS = ["", "[", "[1]", "[" * 100_000, "null", '{"epochs": 3}', '{"epochs": "3"}', "\xff"]


@pytest.mark.parametrize("content", WORTHLESS, ids=range(len(WORTHLESS)))
def test_a_worthless_result_is_found_anew(capsys, runs, tmp_path, content):
    three = runs["classifier"][2]
    out = copied(three, tmp_path)
    (out / "result.json").write_text(content, encoding="latin-1")
    assert resume(capsys, out) == (0, [])
    assert tiny_runs.state_of(out) == tiny_runs.state_of(three)


@pytest.mark.parametrize(
    "change",
    [{"width": 8.5}, {"width": True}, {"lr": "0.1"}, {"data": 5}, {"mixer": ["summation"]},
     {"threads": "1"}, {"encoder": 1}, {"dataset": {}}, {"heads": [2]},
     {"lr": "nan"}, {"lr": 10**400}, {"epochs": 2**80, "width": None}],
    ids=str,
)  # fmt: skip
def test_a_config_that_was_tampered_with(capsys, runs, tmp_path, change):
    out = copied(runs["classifier"][1], tmp_path)
    tiny_runs.edit(out / "config.json", **change)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert tiny_runs.call("classifier", "--resume", "--out", out) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_checkpoint_that_is_no_model(capsys, runs, tmp_path, monkeypatch):
    for task in tiny_runs.TASKS:
        rows = io.BytesIO(runs[task][0].read_bytes())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(rows))
        out = copied(runs[task][1], tmp_path)
        flags = ["--generate", "a", "--out", out] if task == "causal" else ["--predict", out]
        shutil.copy(out / "last.safetensors", out / "best.safetensors")
        assert answers(task, flags) == 2
        assert "does not say what model it holds" in capsys.readouterr().err


@pytest.mark.parametrize("task", tiny_runs.TASKS)
def test_a_digit_of_the_config_that_keeps_all_shapes(capsys, runs, tmp_path, monkeypatch, task):
    """Going on names the setting; predicting does not read it."""
    out = copied(runs[task][1], tmp_path)
    config = json.loads((out / "config.json").read_text())
    tiny_runs.edit(out / "config.json", heads=2 * config["heads"])
    wanted = f"trained with heads {config['heads']}, not {2 * config['heads']}"
    predicted, resumed = used(capsys, monkeypatch, task, runs[task][0], out)
    assert predicted[0] == 0
    assert resumed[0] == 2 and wanted in resumed[1]


@pytest.mark.parametrize("task", [task for task in tiny_runs.TASKS if task != "forecast"])
def test_a_letter_of_the_tokenizer(capsys, runs, tmp_path, monkeypatch, task):
    """Two words that change places keep the vocabulary's size."""
    out = copied(runs[task][1], tmp_path)
    content = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    words = content["model"]["vocab"]
    (a, i), (b, j) = list(words.items())[-2:]
    words[a], words[b] = j, i
    (out / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    for status, errors in used(capsys, monkeypatch, task, runs[task][0], out):
        assert status == 2 and "tokenizer that its model was not trained with" in errors


@pytest.mark.parametrize("task", [task for task in tiny_runs.TASKS if task != "forecast"])
def test_going_on_brings_a_lost_tokenizer_back(runs, tmp_path, task):
    """Made again of the same text; without it the run could never predict."""
    out = copied(runs[task][1], tmp_path)
    before = (out / "tokenizer.json").read_bytes()
    (out / "tokenizer.json").unlink()
    assert answers(task, ["--resume", "--out", out, "--epochs", 3]) == 0
    assert (out / "tokenizer.json").read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_all_files_of_a_run_are_as_readable_as_any_new_file(runs, tmp_path):
    (tmp_path / "new").touch()
    wanted = (tmp_path / "new").stat().st_mode
    for task in tiny_runs.TASKS:
        assert {path.stat().st_mode for path in runs[task][1].iterdir()} == {wanted}
