"""One's own files as they come: other separators and encodings, holes, copies; sets of the hub."""

import gzip
import json
import random
import sys

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import tiny_runs
from tiny_runs import call, train

from data.reading.cells import read_label
from data.reading.times import column_of_times
from data.sets.classification import load_classification
from data.sets.forecast import load_series
from data.sets.language import load_language
from data.sets.multimodal import load_multimodal
from minisum import files
from minisum.columns import read_number
from minisum.errors import UserError


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes most of a small run's time."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


def rows_of(count=60, seed=0):
    rng = random.Random(seed)
    for number in range(count):
        label = rng.choice(["für", "gegen"])
        yield f"das ist n{number} {'gut' if label == 'für' else 'übel'}", label


def written(path, separator=",", encoding="utf-8", header=("text", "label"), rows=None):
    lines = [separator.join(row) for row in (header, *(rows or rows_of()))]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


@pytest.mark.parametrize(
    ("name", "separator", "encoding"),
    [("a.csv", ";", "cp1252"), ("a.tsv", None, "utf-16"), ("a.data.txt", "tab", "utf-32-be"),
     ("a.csv", "|", "utf-8-sig"), ("a.csv.gz", ";", "latin-1")],
)  # fmt: skip
def test_a_file_is_read_as_it_is_written(tmp_path, name, separator, encoding):
    """Whatever stands between the cells and however letters are spelled, it is the same data."""
    plain = load_classification(data_file=written(tmp_path / "plain.csv"))
    between = {"tab": "\t", None: "\t"}.get(separator, separator)
    path = written(tmp_path / name, between, encoding)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = load_classification(data_file=path, separator=separator, encoding=encoding)
    assert (found.sha256, found.class_names) == (plain.sha256, ["für", "gegen"])


@pytest.mark.parametrize(
    ("name", "content", "form", "words"),
    [
        (
            "a.csv",
            "text;label\na;b\n",
            {},
            r"only the column 'text;label': is --separator ';' meant",
        ),
        ("a.tsv", "text,label\na,b\n", {}, r"is --separator ',' meant"),
        ("a.csv", "text\tlabel\n", {}, r"is --separator tab meant"),
        ("a.csv", "text,label\n", {"separator": ";;"}, r"';;': one character is needed"),
        ("a.jsonl", "{}\n", {"separator": ";"}, r"--separator is for tables of text, not for"),
        ("a.csv", "text,label\na,b\n", {"encoding": "klingon"}, r"'klingon': no such encoding"),
        ("a.csv", "text,label\na,b\n", {"encoding": "zlib"}, r"'zlib': no such encoding"),
        ("a.csv", "text,label\nüü,b\n", {"encoding": "ascii"}, r"line 2: not ASCII"),
        ("a.csv", "text,label\nüü,b\n", {"encoding": "utf-16"}, r"line 1: not UTF-16"),
    ],
)
def test_what_a_wrong_form_is_told(tmp_path, name, content, form, words):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        load_classification(data_file=tmp_path / name, **form)


def test_the_wrong_encoding_is_asked_for_by_its_flag(tmp_path):
    path = written(tmp_path / "a.csv", encoding="cp1252")
    with pytest.raises(UserError, match="line 2: not UTF-8 .*--encoding names another") as caught:
        load_classification(data_file=path)
    assert "cp1252" in str(caught.value)


def test_one_class_however_it_is_written():
    spellings = [1, 1.0, "1", "1.0", " 1.00 "]
    assert {read_label(cell, "label", "row 1") for cell in spellings} == {"1"}
    assert read_label("cafe\u0301", "label", "row 1") == read_label("café", "label", "row 1")
    assert [read_label(cell, "l", "r") for cell in ("1.5", "v1.0", "1.0.0")] == [
        "1.5", "v1.0", "1.0.0",
    ]  # fmt: skip


def test_rows_with_holes_are_left_out_when_asked(tmp_path):
    rows = [*rows_of(50), ("", "für"), ("ohne", " ")]
    path = written(tmp_path / "a.csv", rows=rows)
    with pytest.raises(UserError, match="row 51: column 'text' is empty; --skip-empty"):
        load_classification(data_file=path)
    data = load_classification(data_file=path, skip_empty=True)
    whole = load_classification(data_file=written(tmp_path / "b.csv", rows=rows[:50]))
    assert (data.left_out, data.sha256) == (2, whole.sha256)
    lines = [json.dumps({"text": text}) for text in ("a b", "", "c d", " ", *map(str, range(60)))]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    corpus = load_language(data_file=tmp_path / "a.jsonl", skip_empty=True)
    assert corpus.left_out == 2 and all(t.strip() for part in corpus.splits.values() for t in part)


def test_validation_rows_of_ones_own(tmp_path):
    train_file, val = written(tmp_path / "a.csv"), written(tmp_path / "v.csv", rows=rows_of(9, 5))
    data = load_classification(data_file=train_file, val_file=val, validation=0.3)
    assert len(data.splits["val"]) == 9 and data.splits["val"].texts == [
        t for t, _ in rows_of(9, 5)
    ]
    alone = load_classification(data_file=train_file)
    assert data.splits["train"].texts == alone.splits["train"].texts
    assert data.sha256 != alone.sha256
    (tmp_path / "v.txt").write_text("other words\n")
    (tmp_path / "a.txt").write_text("".join(f"line {i}\n" for i in range(99)))
    corpus = load_language(data_file=tmp_path / "a.txt", val_file=tmp_path / "v.txt")
    assert corpus.splits["val"] == ["other words\n"] and "line 93" in corpus.splits["train"][0]
    table = tiny_runs.corpus(tmp_path, "multimodal")
    columns = {"numeric_columns": ["size"], "target": "price"}
    found = load_multimodal(data_file=table, val_file=table, **columns)
    assert len(found.splits["val"]) == 90 == sum(len(found.splits[s]) for s in ("train", "test"))


def test_the_flags_reach_the_loader_and_a_run_goes_on(tmp_path, capsys):
    path = written(tmp_path / "a.csv", ";", "cp1252")
    form = ["--separator", ";", "--encoding", "cp1252"]
    val = written(tmp_path / "v.csv", ";", "cp1252", rows=rows_of(9, 5))
    out = tmp_path / "run"
    assert train_with(path, out, *form, "--val-data", val) == 0
    result = files.read_json(out / "result.json")
    assert result["val_examples"] == 9 and result["class_names"] == ["für", "gegen"]
    assert call("classifier", "--resume", "--out", out, "--encoding", "latin-1") == 0
    new = written(tmp_path / "new.csv", ";", "cp1252", ("id", "text"), [("7", "gut für")])
    capsys.readouterr()
    assert call("classifier", "--predict", out, "--data", new, *form) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("7,")
    assert call("classifier", "--predict", out, "--data", new) == 2
    assert "is --separator ';' meant" in capsys.readouterr().err


def train_with(path, out, *flags):
    small = [flag for flag in tiny_runs.SMALL["classifier"] if flag not in ("--validation", "0.2")]
    return call("classifier", "--data", path, *tiny_runs.COMMON, *small, "--out", out, *flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--separator", ";"], "--separator belongs to --data FILE"),
        (["--val-data", "v.csv"], "--val-data belongs to --data FILE"),
        (["--dataset", "ag_new"], "--dataset 'ag_new' (did you mean 'ag_news'?)"),
        (["--dataset", "me/../you"], "no address on the hub"),
        (
            ["--data", "a.csv", "--val-data", "v.csv", "--select", "test"],
            "--val-data: it has no meaning",
        ),
        (["--data", "a.csv", "--val-data", "v.csv", "--validation", "0.1"], "has the validation"),
        (["--dataset", "ag_news", "--text-column", "body"], "--text-column belongs to --data"),
    ],
)
def test_what_the_flags_refuse(tmp_path, capsys, flags, words):
    assert call("classifier", *flags, "--out", tmp_path / "run") == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_test_texts_that_are_trained_on_are_counted_aloud(tmp_path, capsys):
    path, rows = written(tmp_path / "a.csv"), list(rows_of())
    test = written(tmp_path / "t.csv", rows=[*rows[:7], ("ganz neu", "für")])
    small = ["--epochs", 1]
    assert train("classifier", path, tmp_path / "r", "--test-data", test, *small) == 0
    assert "note: 7 of the test texts are also training" in capsys.readouterr().err
    assert train("classifier", path, tmp_path / "s", "--test-data", path, *small) == 0
    assert "note: --data and --test-data are one file" in capsys.readouterr().err
    assert train("classifier", path, tmp_path / "t", *small) == 0
    assert "note" not in capsys.readouterr().err


def test_a_file_called_like_a_set_of_months_is_cut_otherwise_and_says_so(tmp_path, capsys):
    path = tiny_runs.corpus(tmp_path, "forecast").rename(tmp_path / "ETTh2.csv")
    assert train("forecast", path, tmp_path / "r", "--epochs", 1) == 0
    said = capsys.readouterr().err
    assert "cut into 70, 10 and 20%, but --dataset ETTh2 into 12, 4 and 4 months" in said


def test_a_set_at_an_address_in_minisum_data(tmp_path, monkeypatch, capsys):
    """Any USER/NAME: its own splits, validation included; columns are guessed or named."""
    monkeypatch.setenv("MINISUM_DATA", str(tmp_path))
    folder = tmp_path / "me" / "opinions"
    folder.mkdir(parents=True)
    for split, count in (("train", 60), ("validation", 8), ("test", 10)):
        written(folder / f"{split}.csv", header=("words", "side"), rows=rows_of(count, count))
    columns = {"text_column": "words", "label_column": "side"}
    data = load_classification("me/opinions", **columns)
    assert {split: len(part) for split, part in data.splits.items()} == {
        "train": 60, "val": 8, "test": 10,
    }  # fmt: skip
    corpus = load_language("me/opinions", text_column="words")
    assert len(corpus.splits["train"]) == 60 and len(corpus.splits["val"]) == 8
    flags = ["--text-column", "words", "--label-column", "side", "--epochs", 1, "--width", 8]
    monkeypatch.chdir(tmp_path)
    assert call("classifier", "--dataset", "me/opinions", *flags, "--threads", 1) == 0
    assert next((tmp_path / "runs").iterdir()).name.startswith(("classifier-opinions", "latest"))
    (folder / "train.csv").rename(folder / "train.old")
    with pytest.raises(UserError, match="no split called train.*it has validation, test"):
        load_classification("me/opinions", **columns)


def test_a_column_of_dates_is_the_time_whatever_it_is_called(tmp_path):
    hours = [f"2024-05-01 {hour:02}:00" for hour in range(24)]
    written(tmp_path / "a.csv", header=("when", "load"), rows=[(hour, "1.5") for hour in hours])
    series = load_series(data_file=tmp_path / "a.csv")
    assert (series.columns, series.time_column, series.times) == (("load",), "when", hours)
    assert column_of_times({"from": "2024-05-01", "to": "02.05.2024", "n": "7"}) is None
    assert column_of_times({"n": "20240501", "m": 7, "day": "02.05.2024"}) == "day"


def test_a_decimal_comma_is_named():
    with pytest.raises(
        UserError, match="'20,5' is not a number: its decimal comma must be a point"
    ):
        read_number("20,5", "load", "row 1")
    with pytest.raises(UserError, match="'a,b' is not a number$"):
        read_number("a,b", "load", "row 1")
