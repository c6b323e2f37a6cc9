"""Language models on one's own texts: folders, characters, samples, several continuations."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from cli_runs import ROOT

import minisum
from data.reading.folder import read_folder
from data.sets.language import load_language
from minisum.errors import UserError, visible
from train import causal

SMALL = ["--width", "16", "--heads", "2", "--layers", "2", "--max-len", "16", "--vocab-size", "300",
         "--threads", "1", "--epochs", "2", "--lr", "0.01"]  # fmt: skip


def write_texts(folder, count):
    for i in range(count):
        path = folder / f"{'part' if i % 2 else 'more'}" / f"{i:02}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"the {i} red birds sing.\nthen they sleep.\n" * 3, encoding="utf-8")
    (folder / "notes.md").write_text("not a text of the corpus")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_texts(tmp_path_factory.mktemp("texts"), 5)
    out = folder / "run"
    flags = ["--data", str(folder), *SMALL, "--tokenizer", "character", "--out", str(out)]
    assert causal.main(flags) == 0
    return out


def test_a_folder_is_a_corpus(tmp_path):
    few = write_texts(tmp_path / "few" if (tmp_path / "few").mkdir() is None else None, 4)
    texts = read_folder(few)
    assert len(texts) == 4 and texts[0].startswith("the 0 red") and texts[1].startswith("the 2")
    data = load_language(data_file=few)
    joined = "".join(part for split in ("train", "val", "test") for part in data.splits[split])
    assert joined == "\n".join(texts)
    (tmp_path / "many").mkdir()
    many = load_language(data_file=write_texts(tmp_path / "many", 40))
    assert sum(map(len, many.splits.values())) == 40 and len(many.splits["test"]) == 2
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no .txt file"):
        read_folder(tmp_path / "none")


def test_a_limit_cuts_running_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"line {i:03}\n" for i in range(200)))
    data = load_language(data_file=path, limit_train=7)
    assert data.splits["train"] == ["".join(f"line {i:03}\n" for i in range(7))]


def test_hybrid_of_characters_is_trained_and_writes(run, capsys):
    config = json.loads((run / "config.json").read_text())
    assert (config["mixer"], config["sample"]) == ("hybrid", 40)
    model = minisum.load(run)
    assert model.spec["model"]["layers"] == "summation*1,attention"
    assert len(model.generate("the ", tokens=9, temperature=0)) == 9  # a character each
    flags = ["--generate", "the ", "--out", str(run), "--tokens", "12", "--samples", "3"]
    assert causal.main([*flags, "--top-p", "0.9", "--seed", "4"]) == 0
    written = capsys.readouterr().out
    samples = written.split("\n----\n")
    assert len(samples) == 3 and all(sample.startswith("the ") for sample in samples)
    second = model.generate("the ", tokens=12, top_p=0.9, seed=5)
    assert samples[1].rstrip("\n") == visible("the " + second).rstrip("\n")
    assert causal.main([*flags, "--top-p", "0"]) == 2
    assert "--top-p 0.0: above 0" in capsys.readouterr().err


def test_a_sample_is_shown_after_each_epoch(run, tmp_path, capsys):
    def printed(*more):
        out = tmp_path / f"run{len(more)}"
        data = str(run.parent)
        assert causal.main(["--data", data, *SMALL, "--epochs", "1", "--out", str(out), *more]) == 0
        return capsys.readouterr().out.splitlines()

    assert len(printed()) == len(printed("--sample", "0")) + 1


def test_prompts_are_read_one_by_one(run):
    flags = ["--generate", "", "--out", str(run), "--tokens", "5", "--interactive"]
    with subprocess.Popen(
        [sys.executable, "-m", "train.causal", *flags], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as child:  # fmt: skip
        for prompt in ("the red", "then"):
            child.stdin.write(prompt + "\n")
            child.stdin.flush()
            assert child.stdout.readline().startswith(prompt)
        child.stdin.close()
        assert child.wait(timeout=60) == 0
