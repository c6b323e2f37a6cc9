"""python -m train.TASK --predict with files: rows by the run's own columns, ids kept."""

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from cli_runs import call, refused, spawn

import minisum
from minisum import checkpoint
from minisum.errors import UserError
from train.run.answers import guess

ROWS = [
    {"id": "a7", "text": "the old, old one says meow", "label": "cat"},
    {"id": "b2", "text": "woof\nwoof", "label": "cow"},
    {"id": "c9", "text": "", "label": "dog"},
]


def table(delimiter=",", rows=ROWS):
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def json_lines(rows=ROWS):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def predict(run, given, *flags):
    """(status, output, errors) of --predict run, with `given` on standard input."""
    child = spawn("--predict", run, *flags, stdin=subprocess.PIPE, text=False)
    output, errors = child.communicate(given, timeout=60)
    return child.returncode, output.decode(), errors.decode()


@pytest.fixture(scope="module")
def expected(straight):
    """(label, probability) of ROWS."""
    run = minisum.load(straight)
    probabilities = run.predict_proba([row["text"] for row in ROWS])
    return [(run.classes[row.argmax()], row.max()) for row in probabilities]


def check(rows, expected):
    assert [row["id"] for row in rows] == ["a7", "b2", "c9"]
    assert [row["label"] for row in rows] == ["cat", "cow", "dog"] and "text" not in rows[0]
    for row, (label, probability) in zip(rows, expected, strict=True):
        assert row["predicted"] == label
        assert float(row["probability"]) == pytest.approx(probability, abs=2e-6)


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_table_on_standard_input_keeps_its_other_columns(straight, expected, delimiter):
    status, output, errors = predict(straight, table(delimiter))
    assert (status, errors) == (0, "")
    check(list(csv.DictReader(io.StringIO(output))), expected)


def test_json_lines_are_answered_in_json_lines(straight, expected):
    status, output, errors = predict(straight, json_lines(), "--top-k", "9")
    assert (status, errors) == (0, "")
    rows = [json.loads(line) for line in output.splitlines()]
    check(rows, expected)
    for row in rows:
        named = [row["predicted"], row["predicted_2"], row["predicted_3"]]
        assert sorted(named) == ["cat", "cow", "dog"] and "predicted_4" not in row
        chances = [row["probability"], row["probability_2"], row["probability_3"]]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1, abs=1e-5)


def test_files_by_their_suffix(straight, expected, tmp_path):
    (tmp_path / "new.csv.gz").write_bytes(gzip.compress(table()))
    (tmp_path / "new.dat").write_bytes(json_lines())
    (tmp_path / "new.txt").write_text("woof woof\n\nmeow\n")
    output = predict(straight, b"", "--data", tmp_path / "new.csv.gz")[1]
    check(list(csv.DictReader(io.StringIO(output))), expected)
    flags = ["--data", tmp_path / "new.dat", "--format", "jsonl", "--write", "csv"]
    check(list(csv.DictReader(io.StringIO(predict(straight, b"", *flags)[1]))), expected)
    rows = list(
        csv.DictReader(io.StringIO(predict(straight, b"", "--data", tmp_path / "new.txt")[1]))
    )
    assert [row["text"] for row in rows] == ["woof woof", "", "meow"]
    assert rows[0]["predicted"] == "dog" and rows[2]["predicted"] == "cat"


def test_parquet(straight, expected, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "new.parquet")
    status, output, _ = predict(straight, b"", "--data", tmp_path / "new.parquet")
    assert status == 0
    check(list(csv.DictReader(io.StringIO(output))), expected)


def test_another_text_column_is_named(straight, expected):
    renamed = [{"id": r["id"], "body": r["text"], "label": r["label"]} for r in ROWS]
    status, _, errors = predict(straight, table(rows=renamed), "--format", "csv")
    assert status == 2 and "no column 'text': name the one with --text-column" in errors
    output = predict(straight, table(rows=renamed), "--text-column", "body")[1]
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [row["predicted"] for row in rows] == [label for label, _ in expected]


def test_a_run_that_names_no_column_finds_the_texts(straight, expected, tmp_path, capsys):
    """As runs on named sets do, whose columns are not those of a user's file."""
    arrays, meta = checkpoint.load(straight / checkpoint.BEST)
    del meta["model_spec"]["columns"]
    checkpoint.save(tmp_path / checkpoint.BEST, arrays, meta)
    shutil.copy(straight / checkpoint.TOKENIZER, tmp_path)
    (tmp_path / "new.csv").write_bytes(table())
    assert call("--predict", tmp_path, "--data", tmp_path / "new.csv") == 0
    check(list(csv.DictReader(io.StringIO(capsys.readouterr().out))), expected)


def test_the_likeliest_classes_of_plain_lines(straight):
    status, output, _ = predict(straight, b"meow, meow\nwoof\n", "--top-k", "2")
    assert status == 0
    lines = [line.split("\t") for line in output.splitlines()]
    assert [(len(line), line[0]) for line in lines] == [(4, "cat"), (4, "dog")]
    assert all(float(line[1]) >= float(line[3]) for line in lines)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("id,text,label", "csv"),
        ("text\tid", "tsv"),
        ('{"text": "a", "n": 1}', "jsonl"),
        ("Dear all, the text is here, with commas", "lines"),
        ("{not json", "lines"),
        ("a\ttab", "lines"),
        ("", "lines"),
        ('"a quoted, text', "lines"),
        ("text", None),
        ("id,body", None),
        ('{"body": "a"}', None),
        ("review,stars", None),
    ],
)
def test_what_a_first_line_shows(line, kind):
    if kind is None:
        with pytest.raises(UserError, match="say which with --format lines or"):
            guess(line + "\n", "text")
    else:
        assert guess(line + "\n", "text") == kind


@pytest.mark.parametrize(
    ("encoding", "words"),
    [*((name, f"--encoding '{name}': no such encoding") for name in ("klingon", "zlib", "idna")),
     ("utf-16", "standard input, line 1: not UTF-16")],
)  # fmt: skip
def test_standard_input_in_another_encoding(capsys, monkeypatch, straight, encoding, words):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(table())))
    assert words in refused(capsys, "--predict", straight, "--encoding", encoding)


def test_what_has_no_meaning(capsys, straight):
    assert "--top-k 0" in refused(capsys, "--predict", straight, "--top-k", 0)
    assert "belongs to --predict" in refused(capsys, "--top-k", 2)
    assert "--seed has no meaning" in refused(capsys, "--predict", straight, "--seed", 1)
    assert "does not exist" in refused(capsys, "--predict", straight, "--data", "nowhere.csv")
