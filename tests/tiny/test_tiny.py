"""The two models in one file each: equal to the full ones, no longer than promised, and run."""

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minisum.models.classifier import SummationClassifier
from minisum.models.language_model import LanguageModel
from minisum.optim import Adam
from minisum.params import Params, flatten
from minisum.tiny import classifier, language_model

ROOT = Path(__file__).parents[2]
LINES = {classifier: 130, language_model: 190}

# The small models' names -> the full models'.
CLASSIFIER = {
    "embedding": "embedding",
    "positions": "positions",
    "W": "project.W",
    "head": "head.W",
    "bias": "head.b",
}
LANGUAGE_MODEL = {
    "embedding": "embedding",
    "positions": "positions",
    "gain": "norm.gain",
    "bias": "norm.bias",
    "head": "head.W",
    "head_bias": "head.b",
}
LAYER = {
    "W1": "mixer.project1.W",
    "W2": "mixer.project2.W",
    "Wo": "mixer.o.W",
    "bo": "mixer.o.b",
    "Wup": "up.W",
    "bup": "up.b",
    "Wdown": "down.W",
    "bdown": "down.b",
    "g1": "norm1.gain",
    "b1": "norm1.bias",
    "g2": "norm2.gain",
    "b2": "norm2.bias",
}


def drawn(model, rng):
    """Float64 parameters of a full model, none of them zero or one."""
    arrays = {name: rng.normal(size=np.shape(a)) for name, a in flatten(model.init(rng)).items()}
    return Params.from_arrays(arrays, np, "float64")


def gradients(model, params, batch):
    """(loss, gradients) of a full model."""
    grads = params.zeros_like()
    loss, back = model.loss(params, batch, model.count_targets(batch))
    back(grads)
    return loss, grads


def assert_equal(actual, expected):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-12 * np.abs(expected).max()


def renamed_classifier(params):
    return {ours: params.flat[theirs].copy() for ours, theirs in CLASSIFIER.items()}


def renamed_language_model(params, layers):
    ours = {name: params.flat[theirs].copy() for name, theirs in LANGUAGE_MODEL.items()}
    for name, theirs in LAYER.items():
        ours[name] = np.stack([params.flat[f"blocks.{i}.{theirs}"] for i in range(layers)])
    return ours


@pytest.mark.parametrize(
    ("seed", "B", "n", "d", "V", "C"),
    [(0, 4, 7, 6, 5, 3), (1, 1, 9, 8, 40, 2), (2, 8, 3, 5, 3, 7), (3, 2, 1, 1, 2, 2)],
)
def test_classifier_equals_the_full_model(seed, B, n, d, V, C):
    """On padded batches whose masks have holes; all texts but the first may be empty."""
    rng = np.random.default_rng(seed)
    model = SummationClassifier(V, d, C, max_len=9)
    params = drawn(model, rng)
    mask = rng.random((B, n)) < 0.6
    mask[0, 0] = True
    mask[1:2] = False
    ids, labels = rng.integers(0, V, (B, n)), rng.integers(0, C, B)
    loss, grads = gradients(model, params, {"ids": ids, "mask": mask, "targets": labels})

    texts, places = np.nonzero(mask)
    tokens = np.stack([ids[mask], places, texts])
    ours = renamed_classifier(params)
    tiny_loss, accuracy, tiny_grads = classifier.classify(ours, tokens, labels)
    assert_equal(tiny_loss, loss)
    assert tiny_grads.keys() == ours.keys()
    for name, theirs in CLASSIFIER.items():
        assert_equal(tiny_grads[name], grads.flat[theirs])
    logits = model.predict(params, {"ids": ids, "mask": mask})
    assert accuracy == (logits.argmax(axis=1) == labels).mean()


def test_classifier_batch():
    tokens = classifier.make_batch([[5, 6, 5], [], [7]])
    np.testing.assert_array_equal(tokens, [[5, 6, 5, 7], [0, 1, 2, 0], [0, 0, 0, 2]])


@pytest.mark.parametrize(
    ("seed", "B", "n", "d", "V", "layers"),
    [(0, 3, 7, 6, 11, 1), (1, 1, 9, 8, 5, 3), (2, 4, 1, 5, 9, 2), (3, 2, 6, 4, 3, 2)],
)
def test_language_model_equals_the_full_model(seed, B, n, d, V, layers):
    rng = np.random.default_rng(seed)
    model = LanguageModel(V, d, f"summation*{layers}", max_len=9, heads=1, sum_scale="length")
    params = drawn(model, rng)
    text = rng.integers(0, V, (B, n + 1))
    loss, grads = gradients(model, params, {"ids": text[:, :-1], "targets": text[:, 1:]})

    ours = renamed_language_model(params, layers)
    tiny_loss, back = language_model.next_token_loss(ours, text)
    tiny_grads, expected = back(), renamed_language_model(grads, layers)
    assert_equal(tiny_loss, loss)
    assert tiny_grads.keys() == expected.keys() == ours.keys()
    for name in expected:
        assert_equal(tiny_grads[name], expected[name])


def small_language_model(seed, layers=2, max_len=9):
    rng = np.random.default_rng(seed)
    model = LanguageModel(7, 6, f"summation*{layers}", max_len, heads=1, sum_scale="length")
    params = drawn(model, rng)
    return model, params, renamed_language_model(params, layers), rng


@pytest.mark.parametrize("pieces", [[1] * 25, [25], [4, 1, 9, 11], [9, 16]])
def test_reading_in_any_pieces_gives_the_full_models_distribution(pieces):
    """Also past max_len = 9 tokens."""
    model, params, ours, rng = small_language_model(4)
    text = rng.integers(0, 7, (2, sum(pieces)))
    expected, _ = model.step(params, text, every=True)
    state, logits = None, []
    for piece in np.split(text, np.cumsum(pieces)[:-1], axis=1):
        scores, state, _ = language_model.language_model(ours, piece, state)
        logits.append(scores)
    assert_equal(np.concatenate(logits, axis=1), expected)


def test_state_has_one_vector_a_layer_however_long_the_text():
    _, _, ours, rng = small_language_model(5)
    for n in (1, 30):
        _, (read, sums), _ = language_model.language_model(ours, rng.integers(0, 7, (1, n)))
        assert read == n
        assert [s.shape for s in sums] == [(1, 6), (1, 6)]


def test_generating_draws_what_reading_the_whole_text_would():
    _, _, ours, _ = small_language_model(6)
    tokens = language_model.generate(ours, [3, 1, 4], np.random.default_rng(0))
    rng, text = np.random.default_rng(0), [3, 1, 4]
    for _ in range(20):
        logits, _, _ = language_model.language_model(ours, np.array([text]))
        noise = rng.gumbel(size=7)
        text.append(int((logits[0, -1] / language_model.TEMPERATURE + noise).argmax()))
        assert next(tokens) == text[-1]


def test_every_text_can_be_spelled():
    number = {bytes([byte]): byte for byte in range(256)} | {b" the": 256, b"\n\n": 257}
    names = {i: token for token, i in number.items()}
    for text in ("", "the the thé\n\n  日本\t_x1 == 'a'", "\x00 \r\n"):
        ids = language_model.encode(text.encode(), number)
        assert b"".join(names[int(i)] for i in ids) == text.encode()
    assert list(language_model.encode(b"see the\n\n", number)) == [*b"see", 256, 257]


@pytest.mark.parametrize("module", LINES)
def test_adam_takes_the_steps_of_the_full_one(module):
    rng = np.random.default_rng(0)
    params = Params.from_arrays({"a": rng.normal(size=(3, 4)), "b": rng.normal(size=5)}, np, "f8")
    ours = {name: a.copy() for name, a in params.items()}
    m, v, adam = dict.fromkeys(ours, 0.0), dict.fromkeys(ours, 0.0), Adam(params)
    for step in range(1, 6):
        grads = params.zeros_like()
        grads.vector[...] = rng.normal(size=grads.vector.shape)
        adam.step(grads, lr=0.1 / step)
        module.adam_step(ours, dict(grads.items()), m, v, step, 0.1 / step)
        for name in ours:
            assert_equal(ours[name], params[name])


def test_training_stays_in_float32():
    rng = np.random.default_rng(0)
    params = {
        name: a.astype("f4")
        for name, a in renamed_classifier(drawn(SummationClassifier(5, 4, 3, 9), rng)).items()
    }
    _, _, grads = classifier.classify(params, np.array([[1, 2], [0, 1], [0, 0]]), np.array([2]))
    assert {g.dtype for g in grads.values()} == {np.dtype("f4")}

    params = language_model.init(rng, 7, 2, 6)
    assert {a.dtype for a in params.values()} == {np.dtype("f4")}
    logits, (_, sums), _ = language_model.language_model(params, np.array([[1, 2]]))
    _, back = language_model.next_token_loss(params, np.array([[1, 2, 3]]))
    assert {a.dtype for a in (logits, *sums, *back().values())} == {np.dtype("f4")}


@pytest.mark.parametrize("module", LINES)
def test_file_is_short_plain_and_alone(module):
    source = Path(module.__file__).read_text(encoding="utf-8")
    lines = source.splitlines()
    assert len(lines) <= LINES[module]
    assert max(map(len, lines)) <= 100
    tree = ast.parse(source)
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.partition(".")[0])
    assert "numpy" in imported
    assert imported - {"numpy"} <= sys.stdlib_module_names
    starts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    assert len(starts) == len(set(starts))  # one statement a line


def test_classifier_corpus_has_no_text_twice():
    texts, labels, classes = classifier.load_corpus()
    assert len(set(texts)) == len(texts) == len(labels) > 1000
    assert len(classes) == 20
    assert set(labels) == set(range(20))
    assert min(map(len, texts)) >= 5


def test_language_model_corpus_holds_out_paragraphs_that_it_does_not_train_on():
    parts = [text.split(b"\n\n") for text in language_model.load_corpus()]
    assert not set(parts[0]) & set(parts[1])
    assert len(parts[0]) > 8 * len(parts[1]) > 0


def test_classifier_learns_on_the_command_line(monkeypatch, capsys):
    """Two packages that differ in one word."""
    rng = np.random.default_rng(0)

    def docstrings():
        for _ in range(400):
            word = rng.choice(["red", "blue"])
            filler = " ".join(f"w{i}" for i in rng.integers(0, 50, 6))
            yield f"{word}_package", f"{filler} {word}"

    monkeypatch.setattr(classifier, "docstrings", docstrings)
    classifier.main(["--epochs", "20", "--seed", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert "blue_package, red_package" in lines[0]
    assert len(lines) == 22
    for line in lines[1:-1]:
        assert re.fullmatch(r"epoch \d+  loss \d\.\d+  validation accuracy \d\.\d+", line)
    assert float(lines[-1].removeprefix("test accuracy ")) > 0.9


def test_language_model_learns_on_the_command_line(monkeypatch, capsys):
    """A text in which every word is followed by one other."""
    text = b"one two three four " * 200
    monkeypatch.setattr(language_model, "load_corpus", lambda: (text, text[: len(text) // 10]))
    for name, value in {"MAX_LEN": 16, "WIDTH": 16, "VOCABULARY": 260}.items():
        monkeypatch.setattr(language_model, name, value)
    language_model.main(["--steps", "400", "--seed", "1", "--prompt", "four one"])
    out = capsys.readouterr().out
    unigram, *learned = [float(bits) for bits in re.findall(r"([\d.]+) bits per byte", out)]
    assert len(learned) == 4
    assert learned[-1] < 0.1 < 0.3 < unigram
    assert "four one two three four one two three four" in out


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (classifier, ["--epochs", "0"]),
        (classifier, ["--epochs", "two"]),
        (classifier, ["--seed", "-1"]),
        (classifier, ["--colour"]),
        (language_model, ["--steps", "0"]),
        (language_model, ["--seed", "-1"]),
        (language_model, ["--prompt", ""]),
        (language_model, ["text"]),
    ],
)
def test_wrong_flags_end_with_status_2(module, arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        module.main(arguments)
    assert refused.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("module", LINES)
def test_help_names_every_flag_with_its_default(module, capsys):
    with pytest.raises(SystemExit) as done:
        module.main(["--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    flags = [line for line in out.splitlines() if line.startswith("  --")]
    assert len(flags) >= 2
    assert all(re.search(r"\(.+\)$", line) for line in flags)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
@pytest.mark.parametrize("name", ["classifier", "language_model"])
def test_ctrl_c_ends_quietly_with_status_130(name):
    with subprocess.Popen(
        [sys.executable, "-u", "-m", f"minisum.tiny.{name}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors == b""
