"""What is left of a finished run: all that prediction needs, and a sentence if more is asked."""

import sys

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import tiny_runs
from tiny_runs import call, corpus

from minisum import files


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("data"), "classifier")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.fixture
def run(data, tmp_path):
    """A run of three epochs whose state was dropped, in a folder of its own."""
    flags = [flag for flag in tiny_runs.COMMON if flag != "--keep-state"]
    small = tiny_runs.SMALL["classifier"]
    out = tmp_path / "run"
    assert call("classifier", "--data", data, *flags, *small, "--log-every", 2, "--out", out) == 0
    return out


def content(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}


def test_a_finished_run_has_no_state_and_is_itself(run, data, capsys):
    before = content(run)
    assert not [name for name in before if name.startswith("last")]
    assert sum(map(len, before.values())) < 3 * len(before["best.safetensors"]) + 200_000
    capsys.readouterr()
    assert call("classifier", "--resume", "--out", run) == 0
    assert "test accuracy" in capsys.readouterr().out
    after = content(run)
    assert after.pop("config.json") and before.pop("config.json") and after == before
    assert call("classifier", "--predict", run, "--data", data) == 0


def test_its_result_is_made_again(run):
    """Whoever deletes result.json has no state; whoever damages it gets the same test scores."""
    result = files.read_json(run / "result.json")
    (run / "result.json").write_text("{}")
    assert call("classifier", "--resume", "--out", run) == 0
    again = files.read_json(run / "result.json")
    times = ("seconds", "tokens_per_second", "peak_memory_bytes")
    assert {n: v for n, v in again.items() if n not in times} == {
        n: v for n, v in result.items() if n not in times
    }


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--epochs", 4], "after 3 epochs, without the state to go on from: it predicts"),
        (["--epochs", 2], "--epochs 2: the run is in epoch 3 already"),
    ],
)
def test_more_epochs_are_refused_and_nothing_changes(run, capsys, flags, words):
    before = content(run)
    capsys.readouterr()
    assert call("classifier", "--resume", "--out", run, *flags) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert content(run) == before


def test_a_run_that_patience_stopped_is_not_extended_either(data, tmp_path, capsys):
    flags = [flag for flag in tiny_runs.COMMON if flag != "--keep-state"]
    small = [*tiny_runs.SMALL["classifier"], "--patience", 1, "--lr", 1, "--epochs", 9]
    out = tmp_path / "run"
    assert call("classifier", "--data", data, *flags, *small, "--out", out) == 0
    done = files.read_json(out / "result.json")["epochs"]
    assert done < 9
    assert call("classifier", "--resume", "--out", out) == 0
    assert call("classifier", "--resume", "--out", out, "--patience", 0) == 2
    assert f"after {done} epochs, without the state" in capsys.readouterr().err
