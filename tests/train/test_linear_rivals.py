"""The linear rivals of scikit-learn: how they are chosen, and as runs of the two commands."""

import json

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from train import classifier, multimodal, rivals
from train.command_line import main


def phrases(count, seed):
    """Texts in which only the order of two words tells the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    pairs = ["not good but bad", "not bad but good"]
    return [f"{seed} x{k} is {pairs[i]}" for k, i in enumerate(labels)], labels


@pytest.mark.parametrize("name", rivals.CLASSIFIERS)
def test_pairs_of_words_are_chosen_where_they_tell(name):
    train, other = phrases(60, 0), phrases(40, 1)
    rival = rivals.Rival(name, train, other)
    assert rival.settings["ngrams"] == 2 and rival.settings["score"] == 1.0
    assert len(rival.tried) == 2 * len(rivals.CLASSIFIERS[name])
    assert max(one["score"] for one in rival.tried if one["ngrams"] == 1) < 0.8
    assert (rival.predict(other[0]) == other[1]).all()
    assert rivals.Rival(name, train, other).tried == rival.tried


def test_numbers_stand_beside_the_words():
    """The target is a number plus what a word is worth."""
    rng = np.random.default_rng(0)

    def rows(count):
        texts, worth = phrases(count, count)
        numbers = rng.normal(size=(count, 2))
        return texts, numbers[:, 0] + worth, numbers

    rival = rivals.Rival("tfidf_ridge", rows(200), rows(50))
    texts, targets, numbers = rows(60)
    assert np.abs(rival.predict(texts, numbers) - targets).mean() < 0.1
    assert np.abs(rival.predict(texts, 0 * numbers) - targets).mean() > 0.5
    assert rival.parameters() == rival.read(texts, numbers).shape[1] + 1


def test_a_run_of_a_rival_is_like_any_other(tmp_path, capsys):
    texts, labels = phrases(120, 0)
    lines = [json.dumps({"text": t, "label": int(c)}) for t, c in zip(texts, labels, strict=True)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "run"
    flags = ["--data", str(tmp_path / "rows.jsonl"), "--mixer", "svm", "--validation", "0.2"]
    assert main(classifier.Classification, [*flags, "--out", str(out)]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["test_accuracy"] == 1.0 and result["rival"]["ngrams"] == 2
    words = {word for text in texts for word in text.split()}  # and about as many pairs
    assert result["parameters"] > len(words) and result["epochs"] == 1
    assert main(classifier.Classification, ["--predict", str(out)]) == 2
    assert (
        main(classifier.Classification, [*flags, "--layers", "2", "--out", str(tmp_path / "no")])
        == 2
    )
    assert "one-layer models only" in capsys.readouterr().err


def test_without_scikit_learn_the_command_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rivals, "find_spec", lambda name: None)
    for command, mixer in (
        (classifier.Classification, "svm"),
        (multimodal.Multimodal, "tfidf_ridge"),
    ):
        assert main(command, ["--mixer", mixer, "--out", str(tmp_path / "run")]) == 2
        assert "need scikit-learn: python -m pip install scikit-learn" in capsys.readouterr().err
