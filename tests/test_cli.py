"""python -m train.classifier as its users meet it: runs, stops, kills, bad input, prediction."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from minisum import checkpoint
from train import classifier
from train.command_line import main
from train.run_folder import RunFolder

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "train.classifier"]
TIMES = ("seconds", "tokens_per_second", "peak_memory_bytes")
# Sizes for a corpus of 160 rows: the default average and forgetting are meant for thousands.
SMALL = ["--width", "8", "--max-len", "12", "--batch-size", "8", "--threads", "1",
         "--token-dropout", "0.1", "--ema", "0.9", "--validation", "0.1"]  # fmt: skip

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A file of 160 rows in three classes, told apart by one word in most of them."""
    path = tmp_path_factory.mktemp("corpus") / "animals.jsonl"
    rng = random.Random(3)
    words = ["small", "big", "old", "new", "red", "the", "a", "sees", "and"]
    sounds = {"cat": "meow", "dog": "woof", "cow": "moo"}
    with open(path, "w", encoding="utf-8") as file:
        for number in range(160):
            label = rng.choice(list(sounds))
            text = [*rng.choices(words, k=rng.randint(2, 10)), f"n{number}", sounds[label]]
            rng.shuffle(text)
            file.write(json.dumps({"text": " ".join(text), "label": label}) + "\n")
    return path


@pytest.fixture(scope="module")
def straight(corpus, tmp_path_factory):
    """Ten epochs without a stop."""
    out = tmp_path_factory.mktemp("straight") / "run"
    assert call("--data", corpus, *SMALL, "--epochs", 10, "--lr", 0.02, "--out", out) == 0
    return out


def call(*arguments):
    """The exit status of the command line, run in this process."""
    return main(classifier.COMMAND, [str(argument) for argument in arguments])


def spawn(*arguments, **options):
    command = [*COMMAND, *(str(argument) for argument in arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(command, cwd=ROOT, **options)


def record_of(out):
    """What a run leaves, times apart."""

    def untimed(record):
        return {name: value for name, value in record.items() if name not in TIMES}

    folder = RunFolder(out)
    state, _ = checkpoint.load(folder.last)
    best, _ = checkpoint.load(folder.best)
    return {
        "state": {name: array.tobytes() for name, array in state.items()},
        "best": {name: array.tobytes() for name, array in best.items()},
        "metrics": [untimed(json.loads(line)) for line in folder.metrics.read_text().splitlines()],
        "result": untimed(json.loads(folder.result.read_text())),
        "tokenizer": (Path(out) / "tokenizer.json").read_bytes(),
    }


def test_files_of_a_run(straight):
    config = json.loads((straight / "config.json").read_text())
    assert (config["task"], config["width"], config["threads"]) == ("classifier", 8, 1)
    lines = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 11))
    needed = {"epoch", "step", "train_loss", "val_loss", "val_accuracy", *TIMES[:2]}
    assert all(needed <= line.keys() for line in lines)
    result = json.loads((straight / "result.json").read_text())
    named = {"dataset", "mixer", "backend", "device", "seed", "parameters", "best_epoch"}
    assert named | {"test_accuracy", "test_macro_f1", "versions", *TIMES} <= result.keys()
    assert result["data_sha256"] == config["data_sha256"]
    best = max(lines, key=lambda line: line["val_accuracy"])
    assert result["best_epoch"] == best["epoch"]
    assert result["test_accuracy"] > result["majority_accuracy"] + 0.2


def test_tokenizer_knows_the_training_rows_only(straight):
    """Every row has a word of its own, so the vocabulary tells which rows it was made from."""
    vocabulary = json.loads((straight / "tokenizer.json").read_text())["model"]["vocab"]
    own = [word for word in vocabulary if word.startswith("n") and word[1:].isdigit()]
    result = json.loads((straight / "result.json").read_text())
    assert len(own) == result["train_examples"] < 160 - result["test_examples"]


@posix
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_and_resumed_is_the_same_run(corpus, straight, tmp_path, number, status):
    """A child is asked to stop somewhere in training, then goes on with the command it prints."""
    out = tmp_path / "a run"
    slowly = ["--save-every", 0]  # a checkpoint a step: time enough to be stopped
    child = spawn("--data", corpus, *SMALL, "--epochs", 10, "--lr", 0.02, *slowly, "--out", out)
    wait_for(lambda: (out / "last.safetensors").exists() or child.poll() is not None)
    time.sleep(random.Random(number).uniform(0, 0.2))
    child.send_signal(number)
    output, errors = child.communicate(timeout=20)
    assert child.returncode == status, errors
    assert "Traceback" not in errors and f"--resume --out '{out}'" in errors
    assert not (out / "result.json").exists()
    assert call("--resume", "--out", out) == 0
    assert record_of(out) == record_of(straight)


@posix
def test_killed_again_and_again(corpus, straight, tmp_path):
    """SIGKILL at random moments; a checkpoint at every step makes each session get further.

    MINISUM_KILLS says how many kills there shall be.
    """
    rng = random.Random(5)
    start = ["--data", corpus, *SMALL, "--epochs", 10, "--lr", 0.02, "--save-every", 0]
    kills = runs = 0
    while kills < int(os.environ.get("MINISUM_KILLS", "6")):
        out = tmp_path / str(runs)
        runs += 1
        while not (out / "result.json").exists():
            begun = (out / "config.json").exists()
            child = spawn(*(["--resume"] if begun else start), "--out", out)
            wait_for(lambda child=child, out=out: child.poll() is not None or out.exists())
            time.sleep(rng.uniform(0.0, 0.8))
            kills += child.poll() is None
            child.kill()
            errors = child.communicate()[1]
            assert not errors or errors.startswith("note: "), errors
        assert record_of(out) == record_of(straight), f"run {runs}"
        assert not list(out.glob("*.tmp"))


def wait_for(happened, seconds=30):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def refused(capsys, *arguments):
    """Run; it must fail with status 2 and one sentence on standard error, which is returned."""
    assert call(*arguments) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: "), errors
    return errors[0]


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
        ("--lr inf", "finite"),
        ("--lr -1", "above 0"),
        ("--validation 1", "below 1"),
        ("--validation 0", "above 0"),
        ("--dropout 1", "below 1"),
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
        ("--predict nowhere", "no config.json"),
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
    assert before == {path.name: path.stat().st_mtime_ns for path in straight.iterdir()}
    file = straight / "config.json"
    assert "cannot write" in refused(capsys, "--data", corpus, "--out", file / "below")


def test_resuming_a_finished_run_changes_nothing(capsys, straight):
    before = record_of(straight)
    assert call("--resume", "--out", straight, "--width", 8) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert record_of(straight) == before


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


def test_wrong_types_in_config(capsys, straight, tmp_path):
    config = json.loads((straight / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"width": "8"}))
    assert "wrong type" in refused(capsys, "--resume", "--out", tmp_path)


def test_two_runs_on_one_folder(capsys, corpus, tmp_path):
    out = tmp_path / "run"
    with RunFolder(out).claimed():
        assert "another run" in refused(capsys, "--data", corpus, *SMALL, "--out", out)


def test_recipe_yields_to_flags(corpus, tmp_path):
    out = tmp_path / "run"
    arguments = ["--recipe", "published", "--data", corpus, "--epochs", 1, "--width", 8]
    assert call(*arguments, "--max-len", 12, "--mixer", "attention", "--out", out) == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["epochs"], config["width"]) == (1, 8)
    assert (config["lr"], config["clip_value"], config["dropout"]) == (1e-4, 1.0, 0.0)
    assert config["unmasked"] is True and config["padding"] == "left"


def test_help():
    child = spawn("--help")
    output, errors = child.communicate(timeout=30)
    assert child.returncode == 0 and not errors
    for words in ("--mixer", "(default: 256)", "--recipe published", "--predict", "summation"):
        assert words in output
    assert "(default: None)" not in output and "==SUPPRESS==" not in output


def test_no_traceback_from_a_real_process(tmp_path):
    child = spawn("--width", "-3", "--out", tmp_path / "run")
    output, errors = child.communicate(timeout=30)
    assert (child.returncode, output) == (2, "")
    assert errors == "error: --width -3: it must be at least 1\n"


def answers(folder, text, *flags):
    child = spawn("--predict", folder, *flags, stdin=subprocess.PIPE, text=False)
    output, errors = child.communicate(text, timeout=30)
    return child.returncode, output.decode(), errors.decode()


def test_fewer_epochs_than_done(capsys, straight):
    assert "in epoch 10 already" in refused(capsys, "--resume", "--out", straight, "--epochs", 9)


def test_epochs_added_later_survive_another_stop(corpus, straight, tmp_path):
    """config.json takes the new number, so that going on once more needs no flag."""
    out = tmp_path / "run"
    arguments = ["--data", corpus, *SMALL, "--lr", 0.02, "--out", out]
    assert call(*arguments, "--epochs", 2) == 0
    assert call("--resume", "--out", out, "--epochs", 10) == 0
    assert json.loads((out / "config.json").read_text())["epochs"] == 10
    assert record_of(out) == record_of(straight)


def test_other_threads_are_said(capsys, corpus, tmp_path):
    out = tmp_path / "run"
    assert call("--data", corpus, *SMALL, "--epochs", 1, "--out", out) == 0
    capsys.readouterr()
    assert call("--resume", "--out", out, "--epochs", 2, "--threads", 2) == 0
    assert "to rounding, not to the bit" in capsys.readouterr().err


@posix
def test_full_disk_then_room_again(corpus, straight, tmp_path):
    """No file may pass a few blocks: the state cannot be saved, then it can."""
    out = tmp_path / "run"
    arguments = ["--data", str(corpus), *SMALL, "--epochs", "10", "--lr", "0.02", "--out", str(out)]
    line = 'ulimit -f 20; exec "$@"'
    child = subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert child.returncode == 2 and child.stderr.startswith("error: cannot write"), child.stderr
    assert len(child.stderr.splitlines()) == 1
    assert call("--resume", "--out", out) == 0
    assert record_of(out) == record_of(straight)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_read_only_folder(capsys, corpus, tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    arguments = ["--data", corpus, *SMALL, "--out", tmp_path / "run"]
    assert "cannot write" in refused(capsys, *arguments)


def test_macro_f1():
    """Class 3 occurs nowhere and does not count."""
    labels, chosen = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1])
    assert classifier.macro_f1(chosen, labels, 4) == pytest.approx((4 / 5 + 2 / 4 + 0) / 3)
    logits = np.array([[1e4, 0.0], [0.0, 0.0]])
    assert np.allclose(np.exp(classifier.log_softmax(logits)), [[1, 0], [0.5, 0.5]])


def test_predict(straight):
    lines = [b"the old one says meow", b"", b"woof woof\r", "größer moo".encode(), b"last: meow"]
    status, output, errors = answers(straight, b"\n".join(lines))
    assert (status, errors) == (0, "")
    rows = [line.split("\t") for line in output.splitlines()]
    assert [label for label, _ in rows[:1] + rows[2:]] == ["cat", "dog", "cow", "cat"]
    assert len(rows) == 5 and all(1 / 3 <= float(probability) <= 1 for _, probability in rows)
    one_by_one = answers(straight, b"\n".join(lines), "--batch-size", "1")[1]
    for row, line in zip(rows, one_by_one.splitlines(), strict=True):
        label, probability = line.split("\t")
        assert row[0] == label and float(row[1]) == pytest.approx(float(probability), abs=2e-6)


@posix
def test_predict_into_a_pipe_that_closes(straight, tmp_path):
    line = f'yes meow | "$@" 2>"{tmp_path}/errors" | head -n 3'
    child = subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND, "--predict", str(straight)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert [row.split("\t")[0] for row in child.stdout.splitlines()] == ["cat"] * 3
    assert (tmp_path / "errors").read_text() == ""


def test_predict_refuses_what_is_not_text(straight):
    status, output, errors = answers(straight, b"meow\n\xff\xfe\n")
    assert status == 2 and errors == "error: line 2 of standard input is not UTF-8 text\n"


def test_predict_answers_before_the_input_ends(straight):
    with spawn("--predict", straight, stdin=subprocess.PIPE) as child:
        for word, label in (("meow", "cat"), ("moo", "cow")):
            child.stdin.write(word + "\n")
            child.stdin.flush()
            assert child.stdout.readline().split("\t")[0] == label
        child.stdin.close()
        assert child.wait(timeout=20) == 0


def test_predict_with_damaged_parts(capsys, straight, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((straight / name).read_bytes())
    assert "cannot read the checkpoint" in refused(capsys, "--predict", tmp_path)
    best = (straight / "best.safetensors").read_bytes()
    (tmp_path / "best.safetensors").write_bytes(best[:-1])
    assert "damaged" in refused(capsys, "--predict", tmp_path)
    (tmp_path / "best.safetensors").write_bytes(best)
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    assert "tokenizer" in refused(capsys, "--predict", tmp_path)


def test_all_mixers(capsys, corpus, tmp_path):
    out = tmp_path / "run"
    arguments = ["--data", corpus, *SMALL, "--epochs", 1, "--mixer", "all", "--out", out]
    assert call(*arguments) == 0
    table = capsys.readouterr().out.strip().splitlines()[-5:]
    mixers = ["summation", "attention", "mean_embedding"]
    assert [line.split()[0] for line in table] == ["mixer", *mixers, "majority"]
    results = [json.loads((out / mixer / "result.json").read_text()) for mixer in mixers]
    assert [result["mixer"] for result in results] == mixers
    assert json.loads((out / "comparison.json").read_text()) == results
    assert "choose one of the folders" in refused(capsys, "--predict", out)
    assert call("--resume", "--out", out) == 0


@posix
@pytest.mark.parametrize("closed", ["pipe", "stdout"])
def test_a_reader_that_goes_away(corpus, tmp_path, closed):
    """A broken or closed standard output silences a run; it still finishes."""
    out = tmp_path / "run"
    arguments = ["--data", str(corpus), *SMALL, "--epochs", "2", "--out", str(out)]
    tail = "| true" if closed == "pipe" else ">&-"
    line = f'"$@" 2>"{tmp_path}/errors" {tail}'
    subprocess.run(["sh", "-c", line, "sh", *COMMAND, *arguments], cwd=ROOT, timeout=60)
    assert (tmp_path / "errors").read_text() == ""
    assert (out / "result.json").exists()
