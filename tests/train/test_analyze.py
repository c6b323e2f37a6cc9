"""Looking inside: the contributions are exact, the geometry is what its names say."""

import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisum import checkpoint, files
from minisum.errors import UserError
from minisum.models import classifier as models
from minisum.params import Params
from minisum.runs.classifier import contributions
from minisum.runs.explanation import Explanation
from train import causal, classifier
from train.analyze import __main__ as analyze
from train.analyze import geometry, heads
from train.analyze.contributions import account_of, in_html, in_terminal
from train.command_line import main


@pytest.mark.parametrize("mixer", ("summation", "mean_embedding"))
@given(
    pooling=st.sampled_from(sorted(models.POOLING)),
    masked=st.booleans(),
    length=st.integers(0, 9),
    left=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_contributions_and_bias_are_the_logits(mixer, pooling, masked, length, left, seed):
    rng = np.random.default_rng(seed)
    model = models.build(mixer, 30, 8, 4, 9, pooling=pooling, masked=masked)
    params = Params.from_arrays(model.init(rng), dtype=np.float64)
    params.vector += rng.normal(size=params.vector.size)
    ids, mask = rng.integers(0, 30, 9), np.arange(9) < length
    mask = mask[::-1] if left else mask
    parts = contributions(model, params, ids, mask)
    logits = model.predict(params, {"ids": ids[None], "mask": mask[None]})[0]
    summed = parts.sum(axis=0) + params["head"]["b"]
    np.testing.assert_allclose(summed, logits, rtol=1e-6, atol=1e-9)
    if masked:
        assert not parts[~mask].any()


def test_attention_has_no_exact_contributions():
    model = models.build("attention", 30, 8, 4, 9)
    params = Params.from_arrays(model.init(np.random.default_rng(0)))
    with pytest.raises(UserError, match="sum their tokens"):
        contributions(model, params, np.zeros(9, int), np.ones(9, bool))


def account(words):
    rng = np.random.default_rng(0)
    model = models.build("summation", 30, 8, 3, max(9, len(words)))
    params = Params.from_arrays(model.init(rng))
    ids = rng.integers(0, 30, len(words))
    shares = contributions(model, params, ids, np.ones(len(words), bool))
    text, classes = " ".join(words), ["a", "<b>", "c"]
    return account_of(Explanation(text, classes, words, shares, params["head"]["b"]))


def test_an_account_adds_up_and_is_shown_without_its_markup():
    found = account(["one", "<script>", "three"])
    chosen = found["logits"][found["predicted"]]
    total = sum(entry["contribution"] for entry in found["words"]) + found["bias"]
    assert total == pytest.approx(chosen - np.mean(list(found["logits"].values())), abs=1e-6)
    page = in_html([found | {"true": "<b>"}], "a & b")
    assert "<script>" not in page and "&lt;script&gt;" in page and "a &amp; b" in page
    assert "\x1b" in in_terminal(found, coloured=True)
    assert "one(" in in_terminal(found, coloured=False)


@pytest.mark.parametrize("coloured", [False, True])
def test_long_texts_are_wrapped(monkeypatch, coloured):
    monkeypatch.setenv("COLUMNS", "40")
    words = [f"word{i % 30}" for i in range(60)]
    lines = re.sub(r"\x1b\[[0-9;]*m", "", in_terminal(account(words), coloured)).split("\n")
    assert re.findall(r"word\d+", "\n".join(lines)) == words
    assert 8 < len(lines) < 31 and max(map(len, lines)) <= 40


def test_a_text_without_words_can_be_shown():
    found = account([])
    assert found["words"] == [] and in_html([found], "none") and in_terminal(found, True)


# Geometry


def test_the_plane_keeps_what_singular_values_say():
    rng = np.random.default_rng(1)
    layers = [rng.normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1], rng.normal(size=(50, 6)) + 2]
    plane = np.concatenate(geometry.principal_plane(layers))
    stacked = np.concatenate(layers)
    singular = np.linalg.svd(stacked - stacked.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(plane, axis=0), singular[:2], rtol=1e-10)
    assert abs(plane[:, 0] @ plane[:, 1]) < 1e-9
    # A turned space has the same plane.
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    turned = np.concatenate(geometry.principal_plane([layer @ turn for layer in layers]))
    np.testing.assert_allclose(np.abs(turned), np.abs(plane), atol=1e-9)


def test_cosines():
    x = np.random.default_rng(2).normal(size=(20, 5))
    assert geometry.consecutive_cosines([x, 3 * x, -x]) == pytest.approx([1, -1])
    flat = np.array([[1.0, 0.0], [0.0, 0.0]])  # a zero vector is like nothing
    assert geometry.consecutive_cosines([flat, flat]) == pytest.approx([0.5])


def test_participation_counts_directions():
    rng = np.random.default_rng(3)
    line = rng.normal(size=(4000, 1)) * np.ones(7)
    ball = rng.normal(size=(4000, 7))
    found = geometry.participation_ratios([line, ball, 5 * ball])
    assert found[0] == pytest.approx(1)
    assert found[1] == pytest.approx(7, rel=0.02) and found[2] == pytest.approx(found[1], rel=1e-6)


# The command


def run(*arguments):
    parsed = [str(argument) for argument in arguments]
    return analyze.main(parsed)


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classified")
    lines = [f"{'good fine' if i % 2 else 'bad poor'} thing {i}\t{i % 2}" for i in range(80)]
    (folder / "rows.tsv").write_text("text\tlabel\n" + "\n".join(lines), encoding="utf-8")
    flags = ["--data", folder / "rows.tsv", "--width", 8, "--epochs", 3, "--max-len", 6,
             "--threads", 1, "--out", folder / "run"]  # fmt: skip
    assert main(classifier.Classification, [str(flag) for flag in flags]) == 0
    return folder / "run"


def test_words_of_a_classifier(classified, tmp_path, capsys):
    assert run(classified, "--out", tmp_path / "out", "--texts", 3) == 0
    accounts = json.loads((tmp_path / "out" / "words.json").read_text())
    assert len(accounts) == 3 and {"true", "predicted", "words"} <= accounts[0].keys()
    assert "<article>" in (tmp_path / "out" / "words.html").read_text()
    assert "thing(" in capsys.readouterr().out
    assert run(classified, "--out", tmp_path / "mine", "--text", "A Good day, <b>!") == 0
    (mine,) = json.loads((tmp_path / "mine" / "words.json").read_text())
    assert [entry["word"] for entry in mine["words"]] == ["A", "Good", "day", ",", "<", "b"]


def test_layers_of_language_models(tmp_path, capsys):
    text = "\n".join(f"the {word} sees the {word}" for word in ["cat", "dog", "cow"] * 60)
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    for mixer in ("hybrid", "attention"):
        flags = ["--data", tmp_path / "text.txt", "--width", 16, "--layers", 2, "--max-len", 16,
                 "--heads", 2, "--vocab-size", 300, "--epochs", 1, "--threads", 1,
                 "--mixer", mixer, "--out", tmp_path / mixer]  # fmt: skip
        assert main(causal.LanguageModelling, [str(flag) for flag in flags]) == 0
    out = tmp_path / "out"
    assert run(tmp_path / "hybrid", tmp_path / "attention", "--out", out, "--tokens", 50) == 0
    numbers = json.loads((out / "layers.json").read_text())
    assert set(numbers) == {"hybrid", "attention"}
    for found in numbers.values():
        assert len(found["cosines"]) == 2 and len(found["participation"]) == 3
        assert found["tokens"] <= 50 and all(1 <= v <= 16 for v in found["participation"])
    assert "hybrid" in capsys.readouterr().out


def test_heads_of_token_statistics(tmp_path, capsys):
    """Each layer's step lowers the bound, which is above the rate; the shares add up to one."""
    text = "\n".join(f"the {word} sees the {word}" for word in ["cat", "dog", "cow"] * 60)
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    flags = ["--data", tmp_path / "text.txt", "--width", 16, "--layers-pattern", "tssa*2,attention",
             "--max-len", 8, "--heads", 2, "--vocab-size", 300, "--epochs", 1, "--threads", 1,
             "--out", tmp_path / "run"]  # fmt: skip
    assert main(causal.LanguageModelling, [str(flag) for flag in flags]) == 0
    assert run(tmp_path / "run", "--out", tmp_path / "out", "--tokens", 50) == 0
    layers = json.loads((tmp_path / "out" / "layers.json").read_text())["tssa*2,attention"]["tssa"]
    assert [found["layer"] for found in layers] == [1, 2]
    for found in layers:
        assert 0 < found["rate"] <= found["bound"] and found["after"] < found["bound"]
        assert sum(found["shares"]) == pytest.approx(1, abs=1e-6)
    assert all(found["strongest"][0] != found["strongest"][1] for found in layers)
    assert "TSSA in layer 2: coding rate" in capsys.readouterr().out


def test_the_tokens_of_a_head_are_those_with_the_largest_mean_membership():
    class Tokenizer:
        def decode(self, ids):
            return "abcd"[ids[0]]

    ids = np.array([0, 1, 0, 2, 1, 0, 3, 3, 0, 0, 1, 1, 1, 2, 2, 2, 2])  # d too rarely
    own = np.array([0.9, 0.2, 0.5, 1.0])[ids]
    own[[0, 2]] = 0.5, 0.1  # a's mean: 0.66
    memberships = np.stack([own, 1 - own], axis=1)
    texts = [([1.0, 2.0, 1.5], memberships[:6]), ([2.0, 3.0, 2.5], memberships[6:])]
    found = heads.summed_up(0, texts, ids, Tokenizer())
    assert found["strongest"] == [["a", "c", "b"], ["b", "c", "a"]]
    assert [found[name] * 17 for name in ("rate", "bound", "after")] == pytest.approx([3, 5, 4])
    assert found["shares"] == pytest.approx([own.mean(), 1 - own.mean()])


@pytest.mark.parametrize(
    "arguments, words",
    (
        (["nowhere", "--out", "o"], "no run in it"),
        (["{run}", "--out", "o", "--texts", "0"], "at least 1"),
    ),
)
def test_bad_input_is_told_in_one_sentence(classified, tmp_path, capsys, arguments, words):
    places = {"{run}": classified, "o": tmp_path / "o"}
    assert run(*(places.get(argument, argument) for argument in arguments)) == 2
    errors = capsys.readouterr().err
    assert words in errors and errors.startswith("error: ") and errors.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_refused_model_leaves_no_folder(classified, tmp_path):
    run_of_another = tmp_path / "run"
    shutil.copytree(classified, run_of_another)
    (run_of_another / "best.safetensors").unlink()
    assert run(run_of_another, "--out", tmp_path / "o") == 2
    assert not (tmp_path / "o").exists()


def test_runs_of_two_tasks_are_refused(classified, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    config = {"task": "causal", "format": checkpoint.FORMAT}
    files.write_json(other / "config.json", config, sealed=True)
    assert run(classified, other, "--out", tmp_path / "o") == 2
    assert "different tasks" in capsys.readouterr().err
