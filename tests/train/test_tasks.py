"""The generated tasks: the rules of each, held against independent code."""

import gzip
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from readable import text_of_bytes, tree_of, written

from data.generated import listops, recall
from data.generated.listops import Rules
from data.generated.recall import Recall
from data.generated.regression import Regression
from minisum.errors import UserError
from minisum.models.closed_form import ridge
from minisum.text.tokenizer import BYTES_VOCAB, encode_bytes

ROOT = Path(__file__).parents[2]
SMALL = Rules(max_depth=5, max_args=6, min_length=8, max_length=60)
seeds = st.integers(0, 2**32)


# ListOps


def value_of(text):
    """The value of a written tree, by Python's own parser and the statistics module."""
    functions = {
        "MIN": lambda *a: min(a),
        "MAX": lambda *a: max(a),
        "MED": lambda *a: int(statistics.median(a)),
        "SM": lambda *a: sum(a) % 10,
    }
    words = []
    for token in text.split():
        if token.startswith("["):
            words.append(f"{token[1:]}(")
        else:
            words.append(")," if token == "]" else f"{token},")
    return eval("".join(words).rstrip(","), {"__builtins__": {}}, functions)


def levels_of(text):
    """(deepest level of an operator, deepest level of a digit), the root's level being 1."""
    depth, operators, digits = 0, 0, 0
    for token in text.split():
        if token.startswith("["):
            depth += 1
            operators = max(operators, depth)
        elif token == "]":
            depth -= 1
        else:
            digits = max(digits, depth + 1)
    assert depth == 0
    return operators, digits


def arguments_of(text):
    """How many arguments each operator has."""
    counts, stack = [], []
    for token in text.split():
        if token == "]":
            counts.append(stack.pop())
        elif stack:
            stack[-1] += 1
        if token.startswith("["):
            stack.append(0)
    return counts


@settings(max_examples=15)
@given(seed=seeds, depth=st.integers(4, 6), args=st.integers(3, 6), shortest=st.integers(3, 8))
def test_listops_rules(seed, depth, args, shortest):
    rules = Rules(max_depth=depth, max_args=args, min_length=shortest, max_length=shortest + 60)
    splits = listops.load(30, 5, 10, seed, rules)
    assert {name: len(part.tokens) for name, part in splits.items()} == {
        "train": 30, "validation": 5, "test": 10,
    }  # fmt: skip
    texts = []
    for part in splits.values():
        for tree, value in zip(part.tokens, part.values, strict=True):
            text = written(tree)
            assert shortest < len(text.split()) < shortest + 60
            assert "(" not in text and ")" not in text
            assert tree_of(text) == list(tree)
            assert value_of(text) == value == listops.evaluate(tree)
            operators, digits = levels_of(text)
            assert operators < depth and digits <= depth
            assert all(2 <= count <= args for count in arguments_of(text))
            texts.append(text)
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("shortest, longest", [(3, 5), (6, 8), (9, 12)])
def test_listops_bounds_are_strict(shortest, longest):
    rules = Rules(max_depth=4, max_args=4, min_length=shortest, max_length=longest)
    lengths = listops.load(120, 0, 0, rules=rules)["train"].tokens.lengths
    assert set(lengths) == set(range(shortest + 1, longest))


def test_listops_keeps_its_test_set():
    """The same seed gives the same trees, more training rows the same test rows."""
    few, many = (listops.load(size, 3, 20, 7, SMALL) for size in (10, 50))
    other = listops.load(10, 3, 20, 8, SMALL)
    for name in ("test", "validation"):
        assert np.array_equal(few[name].tokens.flat, many[name].tokens.flat)
    first = many["train"].tokens.take(np.arange(10))
    assert np.array_equal(few["train"].tokens.flat, first.flat)
    assert not np.array_equal(few["test"].tokens.flat[:50], other["test"].tokens.flat[:50])


def test_listops_by_default():
    """The published rules: sizes, lengths, and statistics known of them (standard errors aside)."""
    splits = listops.load(300, 0, 100)
    lengths = splits["train"].tokens.lengths
    assert lengths.min() > 500 and lengths.max() < 2000
    assert 900 < lengths.mean() < 1180
    deepest = {levels_of(written(tree)) for tree in splits["test"].tokens}
    assert deepest == {(9, 10)}
    values = np.concatenate([part.values for part in splits.values()])
    assert set(values) == set(range(10))
    operators = (splits["train"].tokens.flat[:, None] == np.arange(11, 15)).mean(axis=0)
    assert operators.max() / operators.min() < 1.05
    rules, defaults = Rules(), listops.load.__defaults__
    assert (rules.max_depth, rules.max_args) == (10, 10)
    assert (rules.min_length, rules.max_length) == (500, 2000)
    assert defaults[:3] == (96_000, 2_000, 2_000)


def test_listops_digit_probability():
    """Above the deepest level three trees in four are digits, each of them equally often."""
    draw = listops._uniform(np.random.default_rng(0)).__next__
    trees = []
    for _ in range(20_000):
        tree = []
        listops._grow(tree, draw, 1, Rules(max_depth=2))
        trees.append(tree)
    roots = np.array([tree[0] for tree in trees])
    assert abs((roots <= 10).mean() - 0.75) < 0.015
    assert np.bincount(roots[roots <= 10], minlength=11)[1:].min() > 1300
    counts = np.bincount([len(tree) - 2 for tree in trees if len(tree) > 1], minlength=11)
    assert counts[:2].sum() == 0 and counts[2:].min() > 450 and len(counts) == 11


@pytest.mark.parametrize(
    "text, levels, value",
    [
        ("[MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]", None, 5),
        ("[MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]", 1, 4),
        ("[MED 1 4 ]", None, 2),
        ("[SM 9 9 [MAX 1 [MIN 8 9 ] ] ]", None, 6),
        ("[SM 9 9 [MAX 1 [MIN 8 9 ] ] ]", 2, 9),
        ("[SM [MAX 1 2 ] [MIN 3 4 ] ]", 1, None),
        ("[SM [MAX [MIN 1 2 ] [MIN 3 4 ] ] 7 ]", 2, 7),
        ("( ( ( [MAX 2 ) 9 ) ] )", None, 9),
        ("8", None, 8),
    ],
)
def test_listops_by_hand(text, levels, value):
    assert listops.evaluate(tree_of(text), levels) == value


@pytest.mark.parametrize("text", ["", "]", "[MAX 1 2", "1 2", "[MAX 1 ] ]"])
def test_no_listops_tree(text):
    with pytest.raises(ValueError):
        listops.evaluate(tree_of(text))


def test_listops_refusals():
    with pytest.raises(UserError, match="different ListOps trees"):
        listops.load(500, 0, 0, rules=Rules(max_depth=2, max_args=2, min_length=1, max_length=5))
    with pytest.raises(UserError, match="at least 1 level"):
        listops.load(1, rules=Rules(max_depth=0))


def test_published_listops_answers():
    """All targets of the original test file, if MINISUM_DATA holds it."""
    root = os.environ.get("MINISUM_DATA")
    path = Path(root or ".") / "listops_nyu_d20s" / "test.jsonl.gz"
    if not root or not path.exists():
        pytest.skip("MINISUM_DATA does not hold listops_nyu_d20s")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 10_000
    for row in rows:
        assert listops.evaluate(tree_of(row["Source"])) == int(row["Target"])


# Multi-query associative recall


@given(
    seed=seeds, n=st.integers(4, 40), pairs=st.integers(1, 10), more=st.integers(1, 30),
    random_filler=st.booleans(),
)  # fmt: skip
def test_recall_rules(seed, n, pairs, more, random_filler):
    n, pairs = 2 * n, min(pairs, n // 2)
    vocab = n + 2 * more
    task = Recall(vocab, n, pairs, random_filler=random_filler)
    drawn = task.draw(np.random.default_rng(seed), 5)
    assert drawn["ids"].shape == (5, n)
    assert drawn["places"].shape == drawn["targets"].shape == (5, pairs)
    for ids, places, targets in zip(*drawn.values(), strict=True):
        keys, values = ids[0 : 2 * pairs : 2], ids[1 : 2 * pairs : 2]
        assert len(set(keys)) == len(set(values)) == len(set(places)) == pairs
        assert keys.min() >= 1 and keys.max() < vocab // 2
        assert values.min() >= vocab // 2 and values.max() < vocab
        assert places.min() >= 2 * pairs and places.max() < n and not (places % 2).any()
        memory = dict(zip(keys, values, strict=True))
        assert [memory[key] for key in ids[places]] == list(targets)
        filler = np.delete(ids, [*range(2 * pairs), *places])
        assert not set(filler) & set(keys)
        assert filler.min(initial=0) >= 0 and filler.max(initial=0) < vocab
        if not random_filler:
            assert not filler.any()


def test_recall_filler_is_uniform():
    """Over the numbers that are not among the row's keys, zero and values included."""
    task = Recall(vocab=20, length=16, pairs=2)
    ids = task.draw(np.random.default_rng(0), 8000)["ids"]
    keys = ids[:, 0:4:2]
    filler = ids[:, 5::2]
    for number in range(20):
        free = ~(keys == number).any(axis=1)
        share = (filler[free] == number).mean()
        assert abs(share - 1 / 18) < 0.004, number


def test_recall_questions_follow_the_power_law():
    """Places of a single pair against weights i^(a - 1) themselves."""
    task = Recall(vocab=64, length=20, pairs=1)
    places = task.draw(np.random.default_rng(1), 20_000)["places"][:, 0]
    weights = np.arange(1, 10) ** (0.01 - 1)
    counts = np.bincount((places - 2) // 2, minlength=9) / len(places)
    np.testing.assert_allclose(counts, weights / weights.sum(), atol=0.012)


def test_choose_is_a_draw_one_after_another():
    """Two draws from three weights, against the probabilities by hand."""
    weights = np.array([5.0, 3.0, 2.0])
    drawn = recall.choose(np.random.default_rng(2), weights, 40_000, 2)
    for first in range(3):
        for second in {0, 1, 2} - {first}:
            p = weights[first] / 10 * weights[second] / (10 - weights[first])
            share = ((drawn[:, 0] == first) & (drawn[:, 1] == second)).mean()
            assert abs(share - p) < 0.01
    everything = recall.choose(np.random.default_rng(2), weights, 100, 3)
    assert (np.sort(everything, axis=1) == np.arange(3)).all()


def test_distinct_numbers_are_uniform():
    """Each ordered pair of 0 ... 3 equally often: 12 of them, expected 5,000 times each."""
    drawn = recall.distinct(np.random.default_rng(3), 4, 60_000, 2)
    pairs, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(pairs) == 12 and (pairs[:, 0] != pairs[:, 1]).all()
    assert ((counts - 5000) ** 2 / 5000).sum() < 31.3  # chi squared, 11 degrees of freedom, 0.1 %
    everything = recall.distinct(np.random.default_rng(3), 4, 50, 4)
    assert (np.sort(everything, axis=1) == np.arange(4)).all()


@pytest.mark.parametrize("sizes", [(16, 15, 2), (64, 6, 2), (16, 16, 2), (64, 8, 0), (65, 8, 2)])
def test_recall_refusals(sizes):
    with pytest.raises(UserError):
        Recall(*sizes)


# In-context linear regression


@given(
    seed=seeds, dims=st.integers(1, 5), pairs=st.integers(1, 9),
    noise=st.sampled_from([0.0, 0.1, 2.0]), mixed=st.booleans(),
)  # fmt: skip
def test_regression_baselines(seed, dims, pairs, noise, mixed):
    """Against np.linalg on one sequence at a time; without noise and with enough pairs: exact."""
    drawn = Regression(dims, pairs, noise, mixed).draw(np.random.default_rng(seed), 4)
    tokens, sigmas = drawn["x"].astype(np.float64), drawn["sigmas"].astype(np.float64)
    assert tokens.shape == (4, pairs + 1, dims + 1) and not tokens[:, -1, -1].any()
    assert (sigmas <= np.float32(noise)).all() and (mixed or (sigmas == np.float32(noise)).all())
    best, plain = ridge(tokens, sigmas), ridge(tokens, np.zeros(4))
    for row in range(4):
        X, y, asked = tokens[row, :-1, :-1], tokens[row, :-1, -1], tokens[row, -1, :-1]
        w = np.linalg.lstsq(X, y, rcond=1e-10)[0]
        np.testing.assert_allclose(plain[row], asked @ w, rtol=1e-6, atol=1e-8)
        if sigmas[row] > 0.01:
            w = np.linalg.solve(X.T @ X + sigmas[row] ** 2 * np.eye(dims), X.T @ y)
            np.testing.assert_allclose(best[row], asked @ w, rtol=1e-6, atol=1e-8)


def test_regression_statistics():
    """Noiseless targets are recovered; with noise ridge is best and least squares behind it."""
    clean = Regression(5, 20, 0.0).draw(np.random.default_rng(0), 500)
    exact = ridge(clean["x"], np.zeros(500))
    np.testing.assert_allclose(exact, clean["targets"], atol=1e-4)
    noisy = Regression(10, 12, 1.0).draw(np.random.default_rng(1), 4000)

    def error(answers):
        return ((answers - noisy["targets"]) ** 2).mean()

    best = error(ridge(noisy["x"], noisy["sigmas"]))
    assert best < error(ridge(noisy["x"], 2 * noisy["sigmas"]))
    assert best < error(ridge(noisy["x"], noisy["sigmas"] / 2))
    assert best < error(ridge(noisy["x"], np.zeros(4000)))
    assert abs(error(0) / 10 - 1) < 0.1
    residual = noisy["x"][:, :-1, -1].var() - 10
    assert abs(residual - 1) < 0.4


def test_mixed_noise_is_uniform():
    sigmas = Regression(2, 3, 0.8, mixed=True).draw(np.random.default_rng(0), 5000)["sigmas"]
    assert abs(sigmas.mean() - 0.4) < 0.02 and sigmas.max() > 0.79


def test_noise_of_one_of_several_levels():
    """Each as often as the others; and what is drawn beside σ does not depend on the law."""
    levels = (1.0, 3.0, 5.0)
    rng, again = (np.random.default_rng(0) for _ in "ab")
    drawn, quiet = Regression(2, 3, levels).draw(rng, 6000), Regression(2, 3).draw(again, 6000)
    found, counts = np.unique(drawn["sigmas"], return_counts=True)
    assert tuple(found) == levels and abs(counts / 6000 - 1 / 3).max() < 0.03
    np.testing.assert_array_equal(drawn["targets"], quiet["targets"])
    noise = (drawn["x"] - quiet["x"])[:, :3, -1] / drawn["sigmas"][:, None]
    assert abs(noise.std() - 1) < 0.02 and abs(noise.mean()) < 0.02


@pytest.mark.parametrize("sizes", [(0, 1, 0.0), (1, 0, 0.0), (1, 1, -1.0), (1, 1, (1.0, -1.0))])
def test_regression_refusals(sizes):
    with pytest.raises(UserError):
        Regression(*sizes)


# Bytes


@given(texts=st.lists(st.text(max_size=12), min_size=1), max_len=st.integers(1, 60))
def test_bytes(texts, max_len):
    encoded = encode_bytes(texts, max_len)
    assert len(encoded) == len(texts)
    for text, ids in zip(texts, encoded, strict=True):
        assert list(ids) == [byte + 1 for byte in text.encode()[:max_len]]
        if len(text.encode()) <= max_len:
            assert text_of_bytes([*ids, 0, 0]) == text
    assert encoded.flat.max(initial=1) < BYTES_VOCAB


def test_same_data_in_every_process():
    """Python's hash seed and the process decide nothing."""
    program = (
        "import hashlib, numpy as np\n"
        "from data.generated import listops, recall, regression\n"
        "rng = np.random.default_rng(3)\n"
        "rules = listops.Rules(5, 6, 8, 60)\n"
        "arrays = [part.tokens.flat for part in listops.load(20, 5, 5, 1, rules).values()]\n"
        "arrays += recall.Recall().draw(rng, 4).values()\n"
        "arrays += regression.Regression().draw(rng, 4).values()\n"
        "print(hashlib.sha256(b''.join(a.tobytes() for a in arrays)).hexdigest())\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1")
    }  # fmt: skip
    assert len(printed) == 1 and len(printed.pop()) == 65
