"""python -m train.causal as its users meet it, and the text that it trains on."""

import gzip
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from data.sets import language  # noqa: E402
from data.sets.cleaning import wikitext_articles  # noqa: E402
from data.windows import PackedWindows, RowWindows  # noqa: E402
from minisum.errors import UserError  # noqa: E402
from minisum.text.batches import Ragged  # noqa: E402
from train import causal, write  # noqa: E402

ROOT = Path(__file__).parents[2]
SMALL = ["--width", "16", "--heads", "2", "--layers", "2", "--max-len", "16", "--vocab-size", "290",
         "--threads", "1", "--epochs", "2", "--lr", "0.01"]  # fmt: skip

token_lists = st.lists(st.lists(st.integers(1, 20), max_size=12), min_size=1, max_size=8)


@given(documents=token_lists, n=st.integers(1, 9), reset=st.booleans())
def test_packing_reads_every_token_once_and_in_order(documents, n, reset):
    windows = PackedWindows(Ragged.from_list(documents), n, separator=0, reset=reset)
    batch = windows.take(np.arange(len(windows)))
    real = batch["targets"] >= 0
    expected = [token for document in documents for token in (*document, 0)]
    assert batch["targets"][real].tolist() == expected
    assert batch["ids"][real].tolist() == [0, *expected[:-1]]
    assert windows.targets == len(expected)
    # Full windows but for the end of the last one.
    assert real.reshape(-1).tolist() == sorted(real.reshape(-1).tolist(), reverse=True)
    assert ("starts" in batch) == reset
    if reset:
        assert batch["starts"].sum() == len(documents)
        assert (batch["ids"][batch["starts"]] == 0).all()
    for i in range(len(windows)):
        alone = windows.take([i])
        assert all((alone[name] == batch[name][i : i + 1]).all() for name in batch)


@given(texts=token_lists, n=st.integers(1, 9))
def test_rows_are_the_heads_of_texts(texts, n):
    windows = RowWindows(Ragged.from_list(texts), n)
    kept = [text for text in texts if len(text) >= 2]
    assert len(windows) == len(kept)
    for i, text in enumerate(kept):
        batch = windows.take([i])
        assert batch["ids"].tolist() == [text[:-1][:n]]
        assert batch["targets"].tolist() == [text[1:][:n]]
    if kept:
        batch = windows.take(np.arange(len(kept)))
        assert (batch["targets"] >= 0).sum() == windows.targets
        assert (batch["ids"][batch["targets"] < 0] == 0).all()


@given(st.lists(st.text("ab\n", max_size=9), min_size=1), st.sampled_from([0.0, 0.05, 0.3]))
def test_running_text_is_cut_between_lines(parts, test):
    text = "".join(parts) + "a\nb\n"
    try:
        split = language.split_running_text(text, 0.2, test, "it")
    except UserError:
        return
    assert "".join(p for name in language.SPLITS for p in split.get(name, [])) == text
    assert all(part.endswith("\n") for parts in split.values() for part in parts)
    assert ("test" in split) or not test


def test_shares_of_running_text():
    text = "".join(f"line {i:03}\n" for i in range(1000))
    split = language.split_running_text(text, 0.05, 0.05, "it")
    assert [len(split[name][0]) for name in language.SPLITS] == [8100, 450, 450]


def test_articles_begin_at_headings_of_the_first_level():
    lines = ["", " = One = \n", "", " text \n", " = = Part = = \n", " more \n"]
    lines += [" = Two = \n", " x \n"]
    assert wikitext_articles(lines) == [
        "", " = One = \n text \n = = Part = = \n more \n", " = Two = \n x \n"
    ]  # fmt: skip


def test_measures_of_a_hand_made_example():
    """Four tokens of 3, 1, 2 and 0 bytes, with probabilities 1/2, 1/4, 1/8 and 1/16: 10 bits."""
    surprise = sum(math.log(2) * bits for bits in (1, 2, 3, 4))
    measures = causal.measures(surprise, hits=1, targets=4, size=6)
    assert measures["bits_per_byte"] == pytest.approx(10 / 6)
    assert measures["perplexity"] == pytest.approx(2**2.5)
    assert measures["accuracy"] == 0.25
    assert measures["loss"] == pytest.approx(math.log(2) * 2.5)


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "poem.txt"
    rng = np.random.default_rng(0)
    words = ["red", "blue", "bird", "tree", "sings", "naïve", "over", "the"]
    path.write_text(
        "".join(" ".join(rng.choice(words, 6)) + "\n" for _ in range(120)), encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def run(text_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("causal") / "run"
    assert call("--data", text_file, *SMALL, "--out", out) == 0
    return out


def call(*arguments):
    return causal.main([str(argument) for argument in arguments])


def read_result(out):
    return json.loads((out / "result.json").read_text(encoding="utf-8"))


def test_a_run_writes_its_numbers_down(run):
    result = read_result(run)
    assert result["task"] == "causal" and result["mixer"] == "hybrid"
    assert result["test_perplexity"] == pytest.approx(math.exp(result["test_loss"]))
    assert 0 < result["test_bits_per_byte"] < 8 and 0 <= result["test_accuracy"] <= 1
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 2
    assert lines[1]["val_perplexity"] < lines[0]["val_perplexity"] < 290
    best = min(lines, key=lambda line: line["val_perplexity"])
    assert result["best_epoch"] == best["epoch"]


def test_bits_per_byte_count_every_byte_of_the_packed_text(run, text_file):
    """Every target's bits over every byte of the test part, whatever the tokens."""
    result = read_result(run)
    test = language.load_language(data_file=text_file).splits["test"]
    size = sum(len(text.encode()) for text in test)
    bits = result["test_loss"] * result["test_tokens"] / math.log(2)
    assert result["test_bits_per_byte"] == pytest.approx(bits / size)


@pytest.mark.parametrize(
    "flags",
    [
        ["--mixer", "hybrid"],
        ["--mixer", "attention", "--tied"],
        ["--layers-pattern", "projection,gated_sum"],
        ["--rows"],
        ["--reset", "--positions", "add"],
    ],
)
def test_every_kind_of_run_ends_well(flags, text_file, tmp_path):
    pattern = "--layers-pattern" in flags
    small = [word for i, word in enumerate(SMALL) if not (pattern and i in (4, 5))]
    out = tmp_path / "run"
    assert call("--data", text_file, *small, *flags, "--out", out) == 0
    assert math.isfinite(read_result(out)["test_perplexity"])
    assert call("--generate", "the bird", "--out", out, "--tokens", 40) == 0


def test_all_compares_the_three(text_file, tmp_path):
    out = tmp_path / "run"
    assert call("--data", text_file, *SMALL, "--mixer", "all", "--out", out) == 0
    results = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert [result["mixer"] for result in results] == ["summation", "attention", "hybrid"]
    assert call("--generate", "a", "--out", out) == 2


def test_generation_repeats_by_seed(run, capsys):
    texts = []
    for seed in (1, 1, 2):
        assert call("--generate", "the naïve", "--out", run, "--tokens", 50, "--seed", seed) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith("the naïve") and text.endswith("\n") for text in texts)
    assert call("--generate", "", "--out", run, "--tokens", 0) == 0
    assert capsys.readouterr().out == "\n"


def test_a_closed_pipe_and_ctrl_c_end_generation_quietly(run):
    command = [sys.executable, "-m", "train.causal", "--generate", "the", "--out", str(run)]
    reader = subprocess.Popen(
        [*command, "--tokens", "100000"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    reader.stdout.read(20)
    reader.stdout.close()
    assert reader.stderr.read() == b"" and reader.wait(60) == 141
    reader.stderr.close()
    if os.name != "posix":
        return
    process = subprocess.Popen(
        [*command, "--tokens", "1000000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.read(20).startswith(b"the")  # streamed, not kept until the end
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == b""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--layers-pattern", "sum*2"], "sum"),
        (["--layers-pattern", "attention", "--layers", "3"], "--layers: --layers-pattern names"),
        (["--layers-pattern", "attention", "--width", "9", "--out", "new"], "8 heads"),
        (["--reset", "--rows"], "--reset"),
        (["--tokenizer", "word"], "hub:NAME"),
        (["--vocab-size", "258"], "at least 259"),
        (["--text-column", "x"], "--text-column"),
        (["--dataset", "wikitext-2", "--validation", "0.2"], "validation split of its own"),
        (["--generate", "x", "--out", "nowhere"], "no run"),
        (["--generate", "x"], "--out"),
        (["--generate", "x", "--out", "nowhere", "--temperature", "-1"], "--temperature"),
    ],
)
def test_wrong_flags_end_in_one_sentence(flags, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*flags) == 2
    printed, error = capsys.readouterr()
    assert message in error and error.count("\n") == 1
    assert not printed and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("tokens", [0, 2**63 - 1], [-1, 2**63]),
        ("temperature", [0.0, 1e308], [-0.1, math.inf, math.nan]),
        ("top-k", [1, 9], [0, -1]),
        ("top-p", [1e-9, 1.0], [0.0, 1.1, math.nan]),
        ("samples", [1, 99], [0, -1]),
        ("seed", [0, 2**70], [-1]),
    ],
)
def test_the_bounds_of_writing(name, good, bad):
    def check(value):
        flags = ["--generate", "", "--out", "run", f"--{name}={value}"]
        write.check(write.parser().parse_args(flags))

    for value in good:
        check(value)
    for value in bad:
        with pytest.raises(UserError, match=f"--{name} "):
            check(value)


def test_documents_from_a_table(tmp_path):
    path = tmp_path / "d.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for i in range(40):
            file.write(json.dumps({"body": f"document number {i}", "n": i}) + "\n")
    data = language.load_language(data_file=path, validation=0.2)
    assert {split: len(texts) for split, texts in data.splits.items()} == {
        "train": 30, "val": 8, "test": 2
    }  # fmt: skip
    assert data.sha256 == language.load_language(data_file=path, validation=0.2).sha256
    assert not set(data.splits["train"]) & set(data.splits["val"] + data.splits["test"])
    with pytest.raises(UserError, match="column 'n'"):
        language.load_language(data_file=path, text_column="n")


def test_published_splits_come_from_minisum_data(tmp_path, monkeypatch):
    monkeypatch.setenv("MINISUM_DATA", str(tmp_path))
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    lines = ["", " = Title = \n", " some words \n"]
    for split in ("train", "validation", "test"):
        rows = "".join(json.dumps({"text": line}) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(rows, encoding="utf-8")
    packed = language.load_language("wikitext-2")
    assert packed.splits["test"] == ["", " = Title = \n some words \n"]
    by_line = language.load_language("wikitext-2", by_line=True)
    assert by_line.splits["val"] == [" = Title = ", " some words "]


def test_the_default_corpus_is_split_without_overlap():
    data = language.load_language()
    assert all(len(data.splits[split]) > 10 for split in language.SPLITS)
    assert not set(data.splits["train"]) & set(data.splits["test"])
