"""python -m train.classifier --predict: a line in, an answer out."""

import subprocess
import sys

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from cli_runs import COMMAND, ROOT, posix, refused, spawn


def answers(folder, text, *flags):
    child = spawn("--predict", folder, *flags, stdin=subprocess.PIPE, text=False)
    output, errors = child.communicate(text, timeout=30)
    return child.returncode, output.decode(), errors.decode()


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
    (tmp_path / "config.json").write_bytes((straight / "config.json").read_bytes())
    assert "its first epoch is not done" in refused(capsys, "--predict", tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((straight / "tokenizer.json").read_bytes())
    best = (straight / "best.safetensors").read_bytes()
    (tmp_path / "best.safetensors").write_bytes(best[:-1])
    assert "damaged" in refused(capsys, "--predict", tmp_path)
    (tmp_path / "best.safetensors").write_bytes(best)
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    assert "tokenizer" in refused(capsys, "--predict", tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert "cannot be read" in refused(capsys, "--predict", tmp_path)


@posix
@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_a_closed_stream_is_refused(straight, closed):
    command = f"'{sys.executable}' -m train.classifier --predict '{straight}' {closed}"
    shown = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert (shown.returncode, shown.stdout) == (2, "")
    sentence = "--predict needs standard input and standard output, and one is closed"
    assert shown.stderr == f"error: {sentence}\n"
