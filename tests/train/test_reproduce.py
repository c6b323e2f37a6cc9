"""python -m train.reproduce: its cells and tables, what it goes on with, and the quirk switches."""

import csv
import gzip
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import tiny_runs
from interrupting import interrupted

from minisum.text.batches import Ragged
from train import causal, classifier, multimodal, rivals
from train.command_line import main as run_command
from train.reproduce import __main__ as reproduce
from train.reproduce import quirks, sets
from train.reproduce import report as reproduce_report
from train.run.options import from_flags

ROOT = Path(__file__).parents[2]
FEW = ["--sets", "ag_news", "--mixers", "summation,attention", "--protocols", "published",
       "--seeds", "1", "--quick"]  # fmt: skip


def write_rows(path, rows):
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    """A folder MINISUM_DATA with a small ag_news, civil_comments_spans, and half of an imdb."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(30)])
    root = tmp_path / "data"
    root.mkdir()
    for split, count in (("train", 80), ("test", 40)):
        news, posts = [], []
        for number in range(count):
            label = number % 4
            said = " ".join([*rng.choice(words, rng.integers(2, 9)), f"topic{label}", f"n{number}"])
            news.append({"text": said, "label": label})
            numbers = dict.fromkeys(("toxicity", "severe_toxicity", "obscene", "threat"), 0.0)
            numbers |= {"toxicity": float(rng.random())}
            target = float(numbers["toxicity"] + label)
            posts.append({"text": said, **numbers, "identity_attack": target})
        write_rows(root / "ag_news" / f"{split}.jsonl.gz", news)
        write_rows(root / "civil_comments_spans" / f"{split}.jsonl.gz", posts)
    write_rows(root / "imdb" / "train.jsonl.gz", news)
    monkeypatch.setenv("MINISUM_DATA", str(root))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return root


def call(*arguments):
    return reproduce.main([str(argument) for argument in arguments])


def cells_in(out):
    return {path.stem: path.read_bytes() for path in (out / "cells").glob("*.json")}


def a_cell(**changes):
    cell = {
        "set": "ag_news", "mixer": "summation", "protocol": "published", "seed": 0, "at_once": 1,
        "metrics": {"accuracy": 0.5}, "device": "a", "tokens_per_second": 600.0,
        "data_sha256": "0", "train_examples": 5, "parameters": 7,
    }  # fmt: skip
    return cell | changes


def test_cells_tables_and_more_of_them(corpora, tmp_path, capsys):
    """Two runs; then a second seed and a set that cannot be had: what was done stays."""
    out = tmp_path / "out"
    assert call(*FEW, "--out", out) == 0
    before = cells_in(out)
    names = {f"ag_news-{mixer}-published-seed0" for mixer in ("summation", "attention")}
    assert set(before) == names
    assert not list(out.rglob("*.safetensors"))
    cell = json.loads(before["ag_news-summation-published-seed0"])
    assert cell["epoch_chosen_by"] == "test" and cell["train_examples"] == 80
    run = out / "runs" / "ag_news-summation-published-seed0"
    result = json.loads((run / "result.json").read_text())
    assert cell["metrics"] == {"accuracy": result["test_accuracy"]}
    capsys.readouterr()

    more = [*FEW, "--seeds", "2", "--sets", "imdb,ag_news,Weather", "--out", out]
    assert call(*more) == 0
    after = cells_in(out)
    assert {name: after[name] for name in before} == before
    assert set(after) == names | {name.replace("seed0", "seed1") for name in names}
    printed = capsys.readouterr().out
    assert "holds a train file but no test file" in printed and "Weather: not run" in printed
    assert "ag_news-summation-published-seed0:" not in printed
    assert printed.count("imdb-") == 1  # refused once, the other runs of the set are not tried

    table = json.loads((out / "reproduce.json").read_text())
    assert set(table["not_run"]) == {"imdb", "Weather"} and not table["failed"]
    row = table["rows"][0]
    values = [json.loads(after[n])["metrics"]["accuracy"] for n in sorted(after) if "summ" in n]
    assert (row["set"], row["mixer"], row["published"]) == ("ag_news", "summation", 0.91)
    assert row["published_mean"] == pytest.approx(np.mean(values))
    assert row["published_sd"] == pytest.approx(np.std(values, ddof=1))
    assert row["published_seeds"] == 2 and row["published_speed"] > 0
    assert row["published_speed_claim"] == "6-18"
    with open(out / "reproduce.csv", newline="", encoding="utf-8") as file:
        assert [line["mixer"] for line in csv.DictReader(file)] == ["summation", "attention"]
    page = (out / "reproduce.md").read_text(encoding="utf-8")
    assert "| ag_news | summation | accuracy | 0.9100 |" in page and "`--unmasked`" in page
    assert "these numbers mean nothing" in page


def test_nothing_is_run_twice_nor_under_other_settings(corpora, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    (out / "cells").mkdir(parents=True)
    cells = sets.cells(["ag_news"], ["published"], 1, "summation,attention", True, "hub:gpt2")
    folder = reproduce.RunFolder(out)
    for cell in cells:
        reproduce.Cells(folder, cell.arguments).keep(cell.name, a_cell(mixer=cell.mixer))

    def never(*arguments, **options):
        raise AssertionError("a finished cell was run")

    monkeypatch.setattr(reproduce.subprocess, "Popen", never)
    assert call(*FEW, "--out", out) == 0
    assert call(*[word for word in FEW if word != "--quick"], "--out", out) == 2
    assert "contradicts" in capsys.readouterr().err


def test_a_failed_run_is_told_and_tried_again(corpora, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    whole = reproduce.command_of
    monkeypatch.setattr(reproduce, "command_of", lambda cell: [*whole(cell), "--lr", "1e30"])
    one = [*FEW, "--mixers", "summation", "--out", out]
    assert call(*one) == 2
    said = capsys.readouterr()
    assert "training stopped" in said.out and "1 of the runs failed" in said.err
    assert "failed" in json.loads((out / "reproduce.json").read_text())
    assert not cells_in(out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sets", "nowhere"], "--sets 'nowhere'"),
        (["--sets", ","], "--sets names nothing"),
        (["--protocols", "dishonest"], "--protocols 'dishonest'"),
        (
            ["--protocols", "published-batch-perplexity"],
            "--protocols 'pub",
        ),  # of no flag to take back
        (["--mixers", "magic"], "--mixers 'magic'"),
        (["--seeds", "0"], "at least 1"),
        (["--jobs", "0"], "at least 1"),
        (["--out", ""], "--out is empty"),
    ],
)
def test_refusals(tmp_path, capsys, arguments, words):
    assert call(*arguments, *(["--out", tmp_path / "out"] if "--out" not in arguments else [])) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_list_runs_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    assert call("--list", "--sets", "ag_news,ETTh1", "--seeds", 1, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "missing  ag_news-attention-honest-seed0" in printed
    assert "python -m train.classifier --dataset ag_news --mixer summation --seed 0" in printed
    # Six of three classifiers, ten of five forecasters, and four of rivals where they can run.
    assert printed.endswith(f"{20 if rivals.available() else 16} runs\n") and not out.exists()


def test_every_command_line_is_understood():
    """All cells under all protocols parse, and say what their quirks are."""
    classes = {task: tiny_runs.command(task).config_class for task in tiny_runs.TASKS}
    every = quirks.protocols_called("published,honest,published-all,published-unmasked")
    for quick in (False, True):
        for cell in sets.cells(list(sets.SETS), every, 2, None, quick, "bpe"):
            config_class = classes[cell.task]
            parser = reproduce.parser_for(config_class, "x", "")
            config = from_flags(config_class, vars(parser.parse_args(cell.arguments)))
            assert (config.seed, config.mixer) == (cell.seed, cell.mixer)
            if cell.task == "classifier" and cell.mixer not in rivals.ALL:
                published = cell.protocol == "published"
                assert config.unmasked == published
                assert (config.select == "test") == (cell.protocol in every[:1] + every[3:])
                assert (config.lr == 1e-4) == (cell.protocol != "honest")
    lone = quirks.flags("classifier", "published-wide-heads", "attention")
    whole = quirks.flags("classifier", "published", "attention")
    assert [(a, b) for a, b in zip(lone, whole, strict=True) if a != b] == [("split", "full")]
    assert quirks.flags("forecast", "published-wide-heads", "attention") is None
    assert quirks.flags("classifier", "published-wide-heads", "summation") is None
    assert "--head-width" not in quirks.flags("classifier", "published", "summation")
    assert quirks.flags("classifier", "published", "svm") == (
        "--recipe", "published", "--select", "test"
    )  # fmt: skip


def test_rivals_are_left_out_where_they_cannot_run(monkeypatch):
    monkeypatch.setattr(rivals, "find_spec", lambda name: None)
    found = {cell.mixer for cell in sets.cells(["ag_news"], ["honest"], 1)}
    assert found == {"summation", "attention", "mean_embedding"}
    asked = sets.cells(["ag_news"], ["honest"], 1, "svm")  # by name: it says what to install
    assert [cell.mixer for cell in asked] == ["svm"]


def test_the_published_tables_as_typed_a_second_time():
    """Attention, then summation or the hybrid, as the two READMEs have them, row by row."""
    table = {
        "imdb": (0.87, 0.88), "20newsgroups": (0.58, 0.65), "ag_news": (0.91, 0.91),
        "reuters": (0.77, 0.81), "Weather": (0.1607, 0.1548), "Traffic": (0.3263, 0.3206),
        "ETTh1": (0.4450, 0.4387), "ETTh2": (0.2438, 0.1941), "ETTm1": (0.3704, 0.3295),
        "ETTm2": (0.1850, 0.1751),
    }  # fmt: skip
    for name, pair in table.items():
        assert [next(iter(n.values())) for n in sets.SETS[name].numbers.values()] == [*pair]
    table = {
        "imdb": (150, 198, 145, 0.22, 0.18, 0.22), "ag_news": (64, 79, 66, 0.34, 0.32, 0.34),
        "wikitext-2-raw": (300, 331, 274, 0.22, 0.21, 0.23),
        "cmu-book-summaries": (286, 335, 269, 0.18, 0.17, 0.19),
    }  # fmt: skip
    for name, row in table.items():
        numbers = [sets.SETS[f"lm-{name}"].numbers[m] for m in ("attention", "summation", "hybrid")]
        found = [n[metric] for metric in ("batch_perplexity", "accuracy") for n in numbers]
        assert found == [*row]
    comments = sets.SETS["civil_comments"].numbers
    assert comments["attention"] == {"mae": 0.0314, "r2": 0.2599}
    assert comments["summation"] == {"mae": 0.0289, "r2": 0.3576}
    for entry in sets.SETS.values():
        task = quirks.TASKS[entry.task]
        assert entry.numbers.keys() <= {*task.mixers}
        assert all(n.keys() <= task.metrics.keys() for n in entry.numbers.values())


def test_quirks_are_taken_back_by_their_flags():
    """on and off set the same fields of the config, to different values."""
    from train.forecast import ForecastConfig

    classes = {
        "classifier": classifier.ClassifierConfig, "causal": causal.CausalConfig,
        "multimodal": multimodal.MultimodalConfig, "forecast": ForecastConfig,
    }  # fmt: skip
    for task, about in quirks.TASKS.items():
        parser = reproduce.parser_for(classes[task], "x", "")
        for quirk in about.quirks:
            on, off = (vars(parser.parse_args(f.split())) for f in (quirk.on, quirk.off))
            assert on.keys() == off.keys() and all(on[name] != off[name] for name in on)


def test_speed_needs_a_rival_on_the_same_terms(tmp_path):
    folder = reproduce.RunFolder(tmp_path)
    rival = a_cell(mixer="attention", tokens_per_second=200.0)
    beside = {"seed": 1, "at_once": 4, "tokens_per_second": 9.0}
    shared = [a_cell(seed=1, at_once=4), rival | beside]
    apart = [a_cell(seed=2, device="b"), rival | {"seed": 3}]
    settings = {"quick": False, "lm_tokenizer": "bpe"}
    reproduce_report.write(folder, settings, [a_cell(), rival, *shared, *apart], {}, {})
    rows = json.loads((tmp_path / "reproduce.json").read_text())["rows"]
    assert [row["published_speed"] for row in rows] == [3.0, 1.0]
    reproduce_report.write(folder, settings, [a_cell(), rival | {"device": "b"}], {}, {})
    rows = json.loads((tmp_path / "reproduce.json").read_text())["rows"]
    assert [row["published_speed"] for row in rows] == [None, 1.0]
    text = reproduce_report.write(folder, settings, [a_cell(data_sha256="1"), rival], {}, {})
    assert "THE DATA CHANGED" in text


def test_a_speed_stands_beside_the_first_metric_of_a_mixer():
    row = {"set": "s", "mixer": "m", "metric": "mae", "published": 0.5, "parameters": "7",
           "published_speed_claim": "2-15", "own_mean": None, "own_sd": None, "own_seeds": 0,
           "own_speed": 3.0}  # fmt: skip
    rows = [row, row | {"metric": "r2"}, row | {"mixer": "n"}]
    _, *lines = reproduce_report.table(rows, ["own"])
    nothing = reproduce_report.NOTHING
    assert [line[-2:] for line in lines] == [["2-15x", "3.00x"], [nothing] * 2, ["2-15x", "3.00x"]]


def test_runs_take_turns_on_the_gpus(monkeypatch):
    def seen(gpus):
        found = (reproduce.environment_of(slot, gpus) for slot in range(4))
        return [environment.get("CUDA_VISIBLE_DEVICES") for environment in found]

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (seen(1), seen(2)) == ([None] * 4, ["0", "1", "0", "1"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,9")
    assert (seen(1), seen(2)) == (["4,7,9"] * 4, ["4", "7", "4", "7"])
    assert seen(5) == ["4", "7", "9", "4"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_no_run_goes_on_after_an_error(corpora, tmp_path, capsys, monkeypatch):
    """One has ended and cannot be kept; the other would still be at work."""
    started, full = [], OSError(28, "No space left on device")

    def start(self, cell, slot):
        seconds = "0" if not started else "60"
        command = [sys.executable, "-c", f"import time; time.sleep({seconds})"]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return reproduce.Job(cell, slot, started[-1], time.perf_counter())

    def finish(self, job):
        raise full

    monkeypatch.setattr(reproduce.Reproduction, "start", start)
    monkeypatch.setattr(reproduce.Reproduction, "finish", finish)
    assert call(*FEW, "--jobs", "2", "--out", tmp_path / "out") == 2
    assert "No space left" in capsys.readouterr().err
    assert [process.poll() is not None for process in started] == [True, True]


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_ctrl_c_keeps_finished_cells_and_says_how_to_go_on(corpora, tmp_path):
    out = tmp_path / "a run"
    words = [*FEW, "--seeds", "100", "--jobs", "2"]
    status, said = interrupted("train.reproduce", words, out)
    assert status == 130
    assert b"to go on: python -m train.reproduce" in said and b"Traceback" not in said
    kept = cells_in(out)
    assert kept and not list(out.rglob("*.tmp"))
    rows = json.loads((out / "reproduce.json").read_text())["rows"]
    assert sum(row["published_seeds"] for row in rows) == len(kept)


def test_a_stopped_run_goes_on_where_it_was(corpora, tmp_path, capsys):
    """What a killed call left in runs/ is resumed, not begun again."""
    out = tmp_path / "out"
    cell = sets.cells(["ag_news"], ["published"], 1, "summation", True, "hub:gpt2")[0]
    begun = out / "runs" / cell.name
    assert run_command(classifier.Classification, [*cell.arguments, "--out", str(begun)]) == 0
    before = (begun / "result.json").read_bytes()
    assert call(*FEW, "--mixers", "summation", "--out", out) == 0
    assert (begun / "result.json").read_bytes() == before
    assert set(cells_in(out)) == {cell.name}


def classify(out, *flags):
    flags = ["--dataset", "ag_news", "--width", "8", "--max-len", "8", "--epochs", "6",
             "--lr", "0.05", "--threads", "1", "--out", str(out), *flags]  # fmt: skip
    assert run_command(classifier.Classification, flags) == 0
    result = json.loads((out / "result.json").read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return result, lines


def test_select_test(corpora, tmp_path, capsys):
    """Every epoch looks at the test set, says so, and the best figure of it is the result."""
    result, lines = classify(tmp_path / "run", "--select", "test")
    assert "the test set chooses the epoch" in capsys.readouterr().err
    assert len(lines) == 6 and not any(name.startswith("val_") for name in lines[0])
    looks = [line["test_accuracy"] for line in lines]
    assert result["test_accuracy"] == max(looks) and result["epoch_chosen_by"] == "test"
    assert looks[result["best_epoch"] - 1] == max(looks)  # of equals, the lowest loss
    assert (result["train_examples"], result["val_examples"]) == (80, 0)
    assert not any(name.startswith("val_a") for name in result)


def test_select_last_and_validation(corpora, tmp_path):
    result, lines = classify(tmp_path / "last", "--select", "last", "--validation", "0.2")
    assert result["best_epoch"] == 6 and result["epoch_chosen_by"] == "last"
    assert result["val_accuracy"] == lines[-1]["val_accuracy"]
    result, lines = classify(tmp_path / "usual", "--validation", "0.2")
    assert result["epoch_chosen_by"] == "validation"
    assert result["val_accuracy"] == max(line["val_accuracy"] for line in lines)
    assert not any(name.startswith("test_") for name in lines[0])
    stopped, lines = classify(
        tmp_path / "stopped", "--select", "last", "--patience", "1", "--lr", "1e-30"
    )
    assert stopped["best_epoch"] == len(lines) == 2  # waits for a better epoch, keeps the last


def test_select_test_needs_no_validation(corpora, tmp_path, capsys):
    flags = ["--dataset", "ag_news", "--select", "test", "--validation", "0.2"]
    assert run_command(classifier.Classification, [*flags, "--out", str(tmp_path / "run")]) == 2
    assert "--validation: it has no meaning with --select test" in capsys.readouterr().err


def test_first_rows_and_both_perplexities(corpora, tmp_path):
    """The limits keep the heads of files; unequal batches tell the two perplexities apart."""
    given = {"dataset": "ag_news", "limit_train": 12, "limit_test": 5, "rows": True, "max_len": 4,
             "width": 8, "heads": 2, "layers": 1, "vocab_size": 300, "batch_size": 2}  # fmt: skip
    config = from_flags(causal.CausalConfig, given | {"first_rows": True})
    folder = reproduce.RunFolder(tmp_path)
    task = causal.LanguageModelling.load(config, folder, False)
    with gzip.open(corpora / "ag_news" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file][:5]
    assert len(task.windows["train"]) == 12
    expected = Ragged.from_list(causal.encode(task.tokenizer, texts)).truncate(5)
    assert np.array_equal(task.windows["test"].texts.flat, expected.flat)
    drawn = causal.LanguageModelling.load(from_flags(causal.CausalConfig, given), folder, False)
    assert not np.array_equal(drawn.windows["test"].texts.flat, expected.flat)

    rng = np.random.default_rng(0)
    losses = []

    def predict(batch):
        losses.append((rng.random(batch["ids"].shape), batch["targets"] >= 0))
        return np.stack([losses[-1][0], np.zeros(batch["ids"].shape)], axis=-1)

    found = task.evaluate("test", predict)
    means = [values[counted].mean() for values, counted in losses]
    assert found["batch_perplexity"] == pytest.approx(math.exp(np.mean(means)))
    everything = np.concatenate([values[counted] for values, counted in losses])
    assert found["perplexity"] == pytest.approx(math.exp(everything.mean()))
    assert found["perplexity"] != pytest.approx(found["batch_perplexity"], rel=1e-6)


def test_multimodal_quirks(corpora, tmp_path):
    given = {"dataset": "civil_comments_spans", "width": 8, "heads": 2, "max_len": 30}
    published = from_flags(multimodal.MultimodalConfig, given | {"recipe": "published"})
    folder = reproduce.RunFolder(tmp_path)
    quirky = multimodal.Multimodal.load(published, folder, False)
    usual = multimodal.Multimodal.load(
        from_flags(multimodal.MultimodalConfig, given), folder, False
    )
    assert np.array_equal(quirky.order(1), quirky.order(2))
    assert not np.array_equal(usual.order(1), usual.order(2))
    rows = np.arange(4)
    assert quirky.train_batch(rows)["mask"].all()
    assert quirky.train_batch(rows)["ids"].shape == (4, 30)
    batch = usual.train_batch(rows)
    assert not batch["mask"].all() and (batch["ids"][~batch["mask"]] == 0).all()
    errors = multimodal.errors(np.array([0.0, 1.0]), np.array([0.5, 1.5]))
    assert (errors["mse"], errors["rmse"]) == (0.25, 0.5)


def test_runs_are_started_with_the_project_on_their_path():
    assert (reproduce.ROOT / "train" / "classifier.py").is_file()


def test_notes_say_what_is_not_comparable(tmp_path):
    """Other classes than in print, and test texts that are training texts too."""
    folder = reproduce.RunFolder(tmp_path)
    settings = {"quick": False, "lm_tokenizer": "bpe"}
    cells = [a_cell(set="reuters", classes=8, test_texts_in_train=3), a_cell(classes=4)]
    text = reproduce_report.write(folder, settings, cells, {}, {})
    assert "8 classes here, 46 in the published run: not comparable" in text
    assert "3 of the test texts are training texts too" in text and "ag_news: 4" not in text
    same = [a_cell(set="reuters", classes=46, test_texts_in_train=0)]
    text = reproduce_report.write(folder, settings, same, {}, {})
    assert "not comparable" not in text and "training texts too" not in text
    assert "7" in text.split("parameters")[1]
