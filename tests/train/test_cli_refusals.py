"""python -m train.classifier and what it refuses: one sentence, status 2, nothing written."""

import gzip
import os
import shutil

import pytest
import tiny_runs

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from cli_runs import SMALL, call, refused, spawn

from train.run.folder import RunFolder


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--dataset nothing", "--dataset"),
        ("--mixer nothing", "--mixer"),
        ("--heads 3 --width 8 --mixer attention", "--heads 3 does not divide --width 8"),
        ("--heads 3 --width 8", "does not divide"),
        ("--width -1", "--width -1: it must be at least 1"),
        ("--width ten", "--width"),
        ("--width 99999999999", "at most"),
        ("--epochs 0", "--epochs 0"),
        ("--batch-size 0", "--batch-size"),
        ("--lr nan", "finite"),
        ("--precision half", "--precision"),
        ("--precision bf16", "--precision bf16 needs --backend cupy"),
        ("--lr inf", "finite"),
        ("--lr -1", "above 0"),
        ("--validation 1", "below 1"),
        ("--validation 0", "above 0"),
        ("--dropout 1", "below 1"),
        ("--d-ff 16", "--d-ff belongs to an encoder"),
        ("--encoder --d-ff -1", "--d-ff -1: it must be at least 0"),
        ("--seed -1", "--seed"),
        ("--limit-train 0", "--limit-train"),
        ("--clip-norm 0", "--clip-norm"),
        ("--tokenizer bpe --vocab-size 100", "bpe needs"),
        ("--recipe mine", "--recipe"),
        ("--epoch 3", "--epoch"),
        ("--unknown", "--unknown"),
        ("stray", "stray"),
        ("--data nowhere.csv", "nowhere.csv"),
        ("--data nowhere.csv --dataset ag_news", "exclude"),
        ("--text-column body", "--data"),
        ("--resume", "--out"),
        ("--resume --out nowhere", "no config.json"),
        ("--out=", "--out"),
        ("--predict nowhere", "there is no best.safetensors"),
        ("--predict nowhere --epochs 3", "--epochs"),
    ],
)
def test_bad_flags(capsys, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused(capsys, *flags.split())
    assert not (tmp_path / "nowhere").exists()


def broken_gzip(text):
    return gzip.compress(text.encode())[:-20]


BAD_FILES = {
    "empty.csv": (b"", "empty"),
    "header.csv": (b"text,label\n", "header.csv"),
    "columns.csv": (b"one,two,three\n1,2,3\n4,5,6\n", "columns"),
    "one.csv": (b"text,label\n" + b"".join(b"word%d,same\n" % i for i in range(30)), "one class"),
    "torn.jsonl.gz": (broken_gzip('{"text": "a", "label": "b"}\n' * 500), "torn.jsonl.gz"),
    "latin.csv": ("text,label\nGrüße,a\n".encode("latin-1"), "line 2"),
    "notjson.jsonl": (b"text\n", "notjson.jsonl"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(capsys, tmp_path, name):
    content, words = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "run"
    assert words in refused(capsys, "--data", tmp_path / name, "--out", out)
    assert not out.exists()


def test_missing_column_and_unseen_label(capsys, corpus, tmp_path):
    assert "body" in refused(
        capsys, "--data", corpus, "--text-column", "body", "--out", tmp_path / "a"
    )
    other = tmp_path / "test.jsonl"
    other.write_text('{"text": "quack", "label": "duck"}\n')
    arguments = ["--data", corpus, "--test-data", other, "--out", tmp_path / "b"]
    assert "duck" in refused(capsys, *arguments)


def test_divergence_is_one_sentence(capsys, corpus, tmp_path):
    out = tmp_path / "run"
    arguments = ["--data", corpus, *SMALL, "--epochs", 3, "--lr", "1e30", "--out", out]
    assert "epoch 1, step" in refused(capsys, *arguments)
    assert not (out / "last.safetensors").exists()


def test_cupy_without_a_gpu(capsys, tmp_path):
    from minisum import backend
    from minisum.errors import UserError

    try:
        backend.get("cupy")
    except UserError:
        assert "cupy" in refused(capsys, "--backend", "cupy", "--out", tmp_path / "run")
        assert not (tmp_path / "run").exists()
    else:
        pytest.skip("there is a GPU here")


def test_an_old_run_is_not_written_over(capsys, corpus, straight):
    before = {path.name: path.stat().st_mtime_ns for path in straight.iterdir()}
    assert "--resume" in refused(capsys, "--data", corpus, *SMALL, "--out", straight)
    assert "contradicts" in refused(capsys, "--resume", "--out", straight, "--width", 16)
    assert "contradicts" in refused(capsys, "--resume", "--out", straight, "--precision", "bf16")
    assert before == {path.name: path.stat().st_mtime_ns for path in straight.iterdir()}
    file = straight / "config.json"
    assert "cannot write" in refused(capsys, "--data", corpus, "--out", file / "below")


def test_changed_data_is_refused(capsys, corpus, tmp_path):
    data = tmp_path / "animals.jsonl"
    data.write_bytes(corpus.read_bytes())
    out = tmp_path / "run"
    assert call("--data", data, *SMALL, "--epochs", 1, "--out", out) == 0
    capsys.readouterr()
    data.write_bytes(corpus.read_bytes().replace(b"meow", b"purr", 1))
    assert "has changed" in refused(capsys, "--resume", "--out", out, "--epochs", 2)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"task": "causal"}', '{"task": "classifier"'])
def test_damaged_config(capsys, tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    refused(capsys, "--resume", "--out", tmp_path)
    refused(capsys, "--predict", tmp_path)


@pytest.mark.parametrize(
    "changed",
    [{"width": "8"}, {"width": 8.0}, {"width": True}, {"width": None}, {"lr": 10**400},
     {"lr": "1"}, {"unmasked": 1}, {"mixer": None}],
)  # fmt: skip
def test_wrong_types_in_config(capsys, straight, tmp_path, changed):
    shutil.copy(straight / "config.json", tmp_path)
    tiny_runs.edit(tmp_path / "config.json", **changed)
    said = refused(capsys, "--resume", "--out", tmp_path)
    assert "wrong type" in said or "is not the config.json of such a run" in said


def test_two_runs_on_one_folder(capsys, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("minisum.files.LOCK_WAIT", 0.0)
    out = tmp_path / "run"
    with RunFolder(out).claimed():
        assert "another run" in refused(capsys, "--data", corpus, *SMALL, "--out", out)


def test_no_traceback_from_a_real_process(tmp_path):
    child = spawn("--width", "-3", "--out", tmp_path / "run")
    output, errors = child.communicate(timeout=30)
    assert (child.returncode, output) == (2, "")
    assert errors == "error: --width -3: it must be at least 1\n"


def test_fewer_epochs_than_done(capsys, straight):
    assert "in epoch 10 already" in refused(capsys, "--resume", "--out", straight, "--epochs", 9)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_read_only_folder(capsys, corpus, tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    arguments = ["--data", corpus, *SMALL, "--out", tmp_path / "run"]
    assert "cannot write" in refused(capsys, *arguments)
