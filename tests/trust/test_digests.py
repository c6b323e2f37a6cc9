"""No wrong number from a folder: what is read back is whole and unedited, or it is not shown.

Every digit of every JSON file of a run, a comparison and a reproduction is changed, one at a time.
"""

import json
import re
import shutil

import pytest
import tiny_runs

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import minisum
from minisum import files
from minisum.errors import UserError
from train.classifier import ClassifierConfig
from train.run.cells import Cells, claim_settings, read_json
from train.run.folder import RunFolder
from train.run.options import from_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_runs.trained(tmp_path_factory.mktemp("classifier"), "classifier")[1]


def with_a_changed_digit(text):
    """`text` again and again, each time with the next of its digits changed."""
    for place, letter in enumerate(text):
        if letter.isdigit():
            yield text[:place] + str((int(letter) + 1) % 10) + text[place + 1 :]


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def torn(text):
    """The first parts of `text`, in 40 steps."""
    return (text[: len(text) * part // 40] for part in range(40))


def test_every_digit_of_the_settings(run, tmp_path):
    path = tmp_path / "config.json"
    text = (run / "config.json").read_text()
    changed = [*with_a_changed_digit(text), *torn(text)]
    assert len(changed) > 120
    for content in changed:
        path.write_text(content)
        with pytest.raises(UserError, match="or was edited|a later minisum"):
            from_run(ClassifierConfig, "classifier", tmp_path, {})


def test_settings_from_before_there_were_digests(run, tmp_path, capsys):
    """The run predicts; to go on, one sentence says what to do."""
    out = tmp_path / "run"
    shutil.copytree(run, out)
    content = json.loads((out / "config.json").read_text())
    del content[files.SEAL]
    (out / "config.json").write_text(json.dumps(content))
    assert tiny_runs.call("classifier", "--resume", "--out", out) == 2
    said = capsys.readouterr().err
    assert "config.json has no checksum: it is of an earlier minisum" in said
    assert "train again" in said and len(said.splitlines()) == 1
    assert minisum.load(out).predict(["a cat meow"])


def test_every_digit_of_the_result(run, tmp_path):
    folder = RunFolder(tmp_path)
    text = (run / "result.json").read_text()
    folder.result.write_text(text)
    before = folder.read_result()
    assert before["epochs"] == 2
    changed = [*with_a_changed_digit(text), *torn(text)]
    assert len(changed) > 200
    for content in changed:
        folder.result.write_text(content)
        assert folder.read_result() in (None, before)  # the 17th digit may change no number


@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl"])
def test_going_on_finds_the_numbers_again(run, tmp_path, capsys, name):
    """What is printed and what is in the files then are the numbers of the model, not the edit."""
    out = tmp_path / "run"
    shutil.copytree(run, out)
    before = (out / name).read_text()
    changed = list(with_a_changed_digit(before))
    for content in changed[:: len(changed) // 8]:
        (out / name).write_text(content)
        assert tiny_runs.call("classifier", "--resume", "--out", out) == 0
        shown = capsys.readouterr().out
        result = files.read_json(out / "result.json")
        assert re.search(rf"test accuracy +{result['test_accuracy']:.4f}\b", shown)
        assert tiny_runs.state_of(out) == tiny_runs.state_of(run)
        if name == "metrics.jsonl":
            assert lines((out / name).read_text()) == lines(before)


def test_a_result_of_another_model_is_measured_anew(run, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    tiny_runs.edit(out / "result.json", test_accuracy=0.987654, model="0" * 64)
    assert tiny_runs.call("classifier", "--resume", "--out", out) == 0
    assert "0.987" not in capsys.readouterr().out
    assert tiny_runs.state_of(out) == tiny_runs.state_of(run)


def test_every_digit_of_the_metrics(run, tmp_path):
    path = tmp_path / "metrics.jsonl"
    text = (run / "metrics.jsonl").read_text()
    path.write_text(text)
    right = files.read_lines(path)
    assert [record["epoch"] for record in right] == [1, 2]
    first, second = text.splitlines(keepends=True)
    for content in [*with_a_changed_digit(text), second + first, second, first[:-9] + second]:
        path.write_text(content)
        try:
            assert files.read_lines(path) == right  # the 17th digit may change no number
        except UserError as error:
            assert "damaged or was edited" in str(error)
        else:
            assert len(content) == len(text)
    path.write_text(first + second.replace("2", "3", 1))
    with pytest.raises(UserError, match="metrics.jsonl, line 2: "):
        files.read_lines(path)


def test_every_digit_of_cells_and_their_settings(tmp_path):
    folder = RunFolder(tmp_path)
    settings = {"task": "recall", "length": 64, "data_sha256": None}
    claim_settings(folder, settings)
    cells = Cells(folder, settings)
    cells.keep("tssa-seed0", {"accuracy": 0.8125, "seconds": 12.5})
    assert cells.done("tssa-seed0")["accuracy"] == 0.8125
    for path, read in (
        (cells.path("tssa-seed0"), lambda: cells.done("tssa-seed0")),
        (cells.path("tssa-seed0"), lambda: read_json(cells.path("tssa-seed0"))),
        (tmp_path / "settings.json", lambda: claim_settings(folder, settings)),
    ):
        text = path.read_text()
        for content in [*with_a_changed_digit(text), *torn(text)]:
            path.write_text(content)
            with pytest.raises(UserError, match="or was edited.*delete it"):
                read()
        path.write_text(text)
        read()


def test_numbers_that_json_lacks_are_null(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": float("nan"), "b": [float("inf"), 1.5], 3: None}, sealed=True)
    assert files.read_json(path) == {"a": None, "b": [None, 1.5], "3": None}
    json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "NaN", '{"a": NaN}', "\xff"])
def test_what_is_no_json_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="damaged"):
        files.read_json(path)
