"""minisum.load: a run's folder says by itself what it holds, wherever it is moved."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from tiny_runs import corpus, train

import minisum
from data.sets.classification import load_classification
from minisum import checkpoint
from minisum.errors import UserError
from minisum.runs.classifier import ClassifierRun

TEXTS = ["the old one says meow", "", "woof woof", "größer moo", "last: meow"]


@pytest.fixture(scope="module")
def moved(straight, tmp_path_factory):
    """A copy of what prediction needs, in another folder."""
    folder = tmp_path_factory.mktemp("moved")
    for name in (checkpoint.BEST, checkpoint.TOKENIZER):
        shutil.copy(straight / name, folder)
    return folder


def trained(tmp_path_factory, task):
    folder = tmp_path_factory.mktemp(task)
    data = corpus(folder, task)
    assert train(task, data, folder / "run", "--epochs", 1) == 0
    return data, folder / "run"


def test_a_classifier_needs_two_files(straight, moved):
    run = minisum.load(moved)
    assert isinstance(run, ClassifierRun) and run.task == "classifier"
    assert run.classes == ["cat", "cow", "dog"]
    found = run.predict_proba(TEXTS)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    chosen = [run.classes[best] for best in found.argmax(axis=1)]
    assert (
        run.predict(TEXTS) == chosen and chosen[0] == "cat" and chosen[2:] == ["dog", "cow", "cat"]
    )
    again = minisum.load(str(straight), threads=1, batch_size=2).predict_proba(TEXTS)
    np.testing.assert_allclose(again, found, rtol=1e-5)
    assert run.predict_proba([]).shape == (0, 3) and run.predict([]) == []


def test_it_scores_on_the_test_set_what_training_wrote_down(corpus, straight):
    config = json.loads((straight / "config.json").read_text())
    data = load_classification(
        data_file=corpus, validation=config["validation"], seed=config["seed"]
    )
    test = data.splits["test"]
    predicted = minisum.load(straight).predict(test.texts)
    right = [
        name == data.class_names[label] for name, label in zip(predicted, test.labels, strict=True)
    ]
    result = json.loads((straight / "result.json").read_text())
    assert np.mean(right) == pytest.approx(result["test_accuracy"], abs=1e-12)


def test_an_explanation_adds_up_to_the_probabilities(straight):
    run = minisum.load(straight)
    for text in (*TEXTS, "meow " * 40):
        found = run.explain(text)
        expected = run.predict_proba([text])[0]
        np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4, atol=1e-12)
        assert found.label == run.predict([text])[0]
        assert found.shares.shape == (len(found.tokens), 3)
        chosen, logits = found.logits.argmax(), found.logits
        over = logits[chosen] - logits.mean() - (found.bias[chosen] - found.bias.mean())
        assert found.towards().sum() == pytest.approx(over, abs=1e-5)
    assert run.explain("A Meow, <b>").tokens == ["A", "Meow", ",", "<", "b", ">"]
    assert len(run.explain("meow " * 40).tokens) == 12  # --max-len
    strongest = run.explain("the small dog says woof")
    assert strongest.tokens[int(strongest.towards("dog").argmax())] == "woof"


def test_a_printed_explanation_is_a_table_that_adds_up(straight):
    found = minisum.load(straight).explain("a meow, the cat")
    title, heads, *rows = str(found).splitlines()
    assert title == f"cat, probability {found.probabilities.max():.4f}"
    assert heads.split() == ["token", "share"] and rows[0].split()[0] == "meow"
    assert sorted(row.split()[0] for row in rows) == sorted([*found.tokens, "(bias)"])
    over_average = found.logits.max() - found.logits.mean()
    assert sum(float(row.split()[1]) for row in rows) == pytest.approx(over_average, abs=1e-3)
    many = replace(found, tokens=["x y\n\x1b"] * 50, shares=np.arange(150.0).reshape(50, 3) ** 2)
    rows = str(many).splitlines()[2:]
    assert len(rows) == 22 and rows[-2].startswith("(others: 30)") and "\x1b" not in str(many)
    total = many.towards().sum() + found.bias[many.logits.argmax()] - found.bias.mean()
    assert sum(float(row.rpartition(" ")[2]) for row in rows) == pytest.approx(total, abs=0.01)


def test_a_folder_that_is_nearly_called_so_is_offered(straight):
    with pytest.raises(UserError, match=re.escape(f"did you mean '{straight}'")):
        minisum.load(straight.with_name("runn"))


def test_one_text_is_not_taken_for_a_list(straight):
    with pytest.raises(UserError, match="a list of texts"):
        minisum.load(straight).predict("meow")


def test_what_an_explanation_refuses(straight):
    run = minisum.load(straight)
    with pytest.raises(UserError, match="one text is explained at a time, not a list"):
        run.explain(["meow"])
    with pytest.raises(UserError, match=r"no class 'horse': .*\bdog\b"):
        run.explain("meow").towards("horse")


def test_a_language_model_writes(tmp_path_factory):
    _, out = trained(tmp_path_factory, "causal")
    run = minisum.load(out)
    text = run.generate("the cat", tokens=12, seed=3)
    assert text == "".join(run.stream("the cat", 12, seed=3)) and text
    assert run.generate("the cat", tokens=12, seed=3) == text
    assert run.generate(tokens=12, temperature=0) == run.generate(tokens=12, temperature=0, seed=1)


def test_a_regression_takes_rows(tmp_path_factory):
    data, out = trained(tmp_path_factory, "multimodal")
    rows = [json.loads(line) for line in data.read_text().splitlines()][:20]
    run = minisum.load(out, batch_size=8)
    found = run.predict(rows)
    assert found.shape == (20,) and np.isfinite(found).all()
    texts, numbers = [r["text"] for r in rows], np.array([[r["size"], r["rooms"]] for r in rows])
    np.testing.assert_allclose(run.predict_columns(texts, numbers), found, rtol=1e-6)
    missing = run.predict([rows[0] | {"size": None, "text": None}])
    assert np.isfinite(missing).all()
    with pytest.raises(UserError, match="row 2 has no column 'rooms'"):
        run.predict([rows[0], {"text": "a", "size": 1}])


def test_a_forecaster_takes_rows_or_an_array(tmp_path_factory):
    data, out = trained(tmp_path_factory, "forecast")
    lines = [line.split(",") for line in data.read_text().splitlines()]
    values = np.array(lines[1:], float)[:, 1:]
    run = minisum.load(out)
    assert (run.columns, run.window) == (["tide", "flow"], 16)
    found = run.forecast(values)
    assert found.shape == (4, 2)
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    np.testing.assert_array_equal(run.forecast(rows), found)
    np.testing.assert_array_equal(run.forecast(rows[-16:]), found)
    with pytest.raises(UserError, match="15 rows are too few"):
        run.forecast(values[:15])
    with pytest.raises(UserError, match="2 columns"):
        run.forecast(values[:, :1])


def test_what_is_no_trained_model_is_told_in_a_sentence(straight, tmp_path):
    with pytest.raises(UserError, match="no run in it"):
        minisum.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="its first epoch is not done"):
        minisum.load(tmp_path)
    shutil.copytree(straight, tmp_path / "summation")
    with pytest.raises(UserError, match=r"compares several mixers.*\(summation\)"):
        minisum.load(tmp_path)
    with pytest.raises(UserError, match="a run of another task: classifier"):
        minisum.load(straight, task="causal")
    arrays, meta = checkpoint.load(straight / checkpoint.BEST)
    best = tmp_path / "summation" / checkpoint.BEST
    for change, words in (
        ({"kind": "magic"}, "does not know"),
        ({"magic": 1}, "does not know"),
        ({"width": 4}, "other arrays"),
    ):
        spec = meta["model_spec"] | {"model": meta["model_spec"]["model"] | change}
        checkpoint.save(best, arrays, meta | {"model_spec": spec})
        with pytest.raises(UserError, match=words):
            minisum.load(best.parent)
    checkpoint.save(best, arrays, meta | {"model_spec": {"vocab": 9}})
    with pytest.raises(UserError, match="delete it and --resume the run"):
        minisum.load(best.parent)
