"""The regressors of text and numbers: gradients, padding, the closed form, and their data."""

import csv
import json
import math

import numpy as np
import pytest
from conftest import XP
from hypothesis import given

from data import python_functions
from data.multimodal import Columns, Standardiser, load_multimodal, read_table
from minisum import backend
from minisum.errors import UserError
from minisum.gradcheck import gradcheck, loss_op
from minisum.models import multimodal
from minisum.models.ridge import solve_ridge
from minisum.params import Params
from minisum.strategies import cases

MIXERS = list(multimodal.MODELS)
COLUMNS = Columns("text", ("a", "b"), "y")


def host(x):
    return backend.to_numpy(x)


def build(mixer, V=7, d=6, k=3, n=9, **options):
    return multimodal.build(mixer, V, d, k, n, heads=2, **options)


def parameters(model, seed=0):
    """Normal draws, the biases around 1, so that every layer has a ReLU that is open."""
    rng = np.random.default_rng(seed)
    shapes = {name: a.shape for name, a in model.init(rng).items()}
    arrays = {name: rng.normal(float(name.endswith(".b")), 0.5, s) for name, s in shapes.items()}
    return Params.from_arrays(arrays, XP, "float64")


def make_batch(model, lengths, n, seed=0, noise=True):
    rng = np.random.default_rng(seed)
    B = len(lengths)
    batch = {
        "ids": rng.integers(0, model.vocab, (B, n)).astype(np.int32),
        "mask": np.arange(n) < np.array(lengths)[:, None],
        "numbers": rng.normal(size=(B, model.columns, model.inputs)),
        "targets": rng.normal(size=B),
    }
    if noise:
        batch |= model.noise(rng, batch)
    return backend.to_device(batch, XP)


def gradient(model, params, batch):
    grads = params.zeros_like()
    model.loss(params, batch, model.weight(batch))[1](grads)
    return host(grads.vector)


# The models


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("mixer", MIXERS)
def test_gradient_of_the_whole_model(mixer, inputs, noisy):
    """Along a random direction of the flat vector and along 40 of its entries.

    The seeds are fixed, and at them no ReLU turns over within a step of the difference.
    """
    rates = {"dropout": 0.3, "token_dropout": 0.2} if noisy else {}
    model = build(mixer, inputs=inputs, **rates)
    params = parameters(model, seed=7)
    batch = make_batch(model, [4, 1, 0, 3], n=4, seed=1)
    used = params.zeros_like()
    model.loss(params, batch, 4)[1](used)
    assert gradcheck(loss_op(model, params, batch), params.vector, entries=40, seed=4)
    for name, g in used.items():
        assert host(g).any(), name


@pytest.mark.parametrize("mixer", MIXERS)
def test_backward_adds_and_writes_to_nothing(mixer):
    model = build(mixer, dropout=0.5)
    params = parameters(model)
    batch = make_batch(model, [3, 5], n=5)
    before, kept = host(params.vector).copy(), {k: host(v).copy() for k, v in batch.items()}
    once = gradient(model, params, batch)
    twice = params.zeros_like()
    twice.vector[...] = 1
    _, back = model.loss(params, batch, 2)
    back(twice)
    back(twice)
    np.testing.assert_allclose(host(twice.vector), 1 + 2 * once, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(host(params.vector), before)
    for name, a in batch.items():
        np.testing.assert_array_equal(host(a), kept[name])


@pytest.mark.parametrize("mixer", MIXERS)
@given(case=cases(XP, B=(2, 5), n=(1, 6)))
def test_an_example_alone_equals_itself_in_a_batch(mixer, case):
    """Whatever stands in the padding, and with padding on top of it."""
    model = build(mixer)
    params = parameters(model, case.seed)
    lengths = case.rng.integers(0, case.n + 1, case.B)
    batch = make_batch(model, lengths, case.n + 2, case.seed)
    together = host(model.predict(params, batch))
    alone = np.zeros(params.vector.shape)
    for b, length in enumerate(lengths):
        one = {name: a[b : b + 1] for name, a in batch.items()}
        one["ids"], one["mask"] = one["ids"][:, : max(1, length)], one["mask"][:, : max(1, length)]
        np.testing.assert_allclose(host(model.predict(params, one))[0], together[b], atol=1e-9)
        grads = params.zeros_like()
        model.loss(params, one, case.B)[1](grads)
        alone += host(grads.vector)
    np.testing.assert_allclose(alone, gradient(model, params, batch), rtol=1e-9, atol=1e-7)


def test_words_see_no_number_and_the_others_see_each():
    for mixer in MIXERS:
        model = build(mixer)
        params = parameters(model)
        params.vector[...] = abs(params.vector)  # every ReLU open
        batch = make_batch(model, [3, 5], n=5)
        plain = host(model.predict(params, batch))
        for i in range(model.columns):
            numbers = batch["numbers"].copy()
            numbers[:, i] += 3.0
            moved = host(model.predict(params, batch | {"numbers": numbers}))
            if mixer == "words":
                np.testing.assert_array_equal(moved, plain)
            else:
                assert np.abs(moved - plain).max() > 1e-6, (mixer, i)


def test_the_shared_channel_is_a_sum():
    """joint(text, numbers) = joint(text) + joint(numbers), an empty text saying relu(bias)."""
    model = build("summation")
    params = parameters(model)
    batch = make_batch(model, [4, 2], n=4)
    both, _ = model.joint(params, batch)
    silent = batch | {"mask": batch["mask"] & False}
    numbers, _ = model.joint(params, silent)
    words, _ = multimodal.WordsRegressor.joint(model, params, batch)
    nothing = XP.maximum(params["text.b"], 0)
    np.testing.assert_allclose(host(both), host(words + numbers - nothing), atol=1e-10)


def test_ridge_is_the_minimum():
    """There the gradient of Σ (x w + b - y)² + alpha |w|² vanishes; any other point is worse."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (40, 4)), rng.normal(5, 1, 40)
    w, b = solve_ridge(x, y, alpha=2.5)
    off = x @ w + b - y
    np.testing.assert_allclose(x.T @ off + 2.5 * w, 0, atol=1e-10)
    assert abs(off.sum()) < 1e-10
    value = (off**2).sum() + 2.5 * (w**2).sum()
    for _ in range(20):
        v, c = w + rng.normal(0, 0.1, 4), b + rng.normal(0, 0.1)
        assert ((x @ v + c - y) ** 2).sum() + 2.5 * (v**2).sum() > value


def test_ridge_predicts_what_was_solved_and_learns_nothing():
    rng = np.random.default_rng(0)
    numbers, y = rng.normal(size=(30, 3, 2)), rng.normal(size=30)
    solution = solve_ridge(numbers.reshape(30, 6), y)
    model = multimodal.build("ridge", 7, 4, 3, 9, inputs=2, solution=solution)
    params = Params.from_arrays(model.init(rng), XP, "float64")
    batch = backend.to_device({"numbers": numbers, "targets": y}, XP)
    expected = numbers.reshape(30, 6) @ solution[0] + solution[1]
    np.testing.assert_allclose(host(model.predict(params, batch)), expected, atol=1e-12)
    assert not gradient(model, params, batch).any()


def test_an_unknown_mixer_is_the_users_error():
    with pytest.raises(UserError, match="unknown mixer 'sum'"):
        build("sum")


# The data


def table(rows, columns=COLUMNS):
    return read_table(rows, "file.csv", columns)


def test_cells_of_all_kinds():
    rows = [
        {"text": "one", "a": "1.5", "b": " 2e3 ", "y": 1},
        {"text": None, "a": "", "b": None, "y": "0"},
        {"text": "three", "a": "NaN", "b": "n/a", "y": True},
        {"text": "no target", "a": 1, "b": 1, "y": ""},
    ]
    read = table(rows)
    assert read.texts == ["one", "", "three"] and read.left_out == 1
    nan = math.nan
    np.testing.assert_array_equal(read.numbers, [[1.5, 2000], [nan, nan], [nan, nan]])
    np.testing.assert_array_equal(read.targets, [1, 0, 1])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "t", "a": "high", "b": 1, "y": 1}, "row 2, column 'a': 'high' is not a number"),
        ({"text": "t", "a": 1, "b": [1], "y": 1}, "row 2, column 'b': .* is not a number"),
        ({"text": "t", "a": 1, "b": "inf", "y": 1}, "row 2, column 'b': infinity"),
        ({"text": "t", "a": 1, "b": 10**400, "y": 1}, "row 2, column 'b': infinity"),
        ({"text": "t", "a": 1, "y": 1}, "row 2: there is no column 'b'"),
        ({"text": 5, "a": 1, "b": 1, "y": 1}, "row 2: column 'text' holds int"),
    ],
)
def test_a_bad_cell_is_named(row, message):
    with pytest.raises(UserError, match=message):
        table([{"text": "t", "a": 1, "b": 1, "y": 1}, row])


def test_standardised_on_what_is_known():
    nan = math.nan
    numbers = np.array([[1.0, 0.1], [nan, 0.1], [5.0, 0.1]])
    standardise = Standardiser.fit(numbers, "ab")
    assert standardise.flagged and standardise.inputs == 2
    out = standardise(numbers)
    np.testing.assert_allclose(out[:, 0], [[-1, 0], [0, 1], [1, 0]])
    np.testing.assert_array_equal(out[:, 1], [[0, 0]] * 3)  # constant: 0, also for a new value
    np.testing.assert_array_equal(standardise(np.array([[3.0, 9.0]]))[0, 1], [0, 0])
    whole = Standardiser.fit(numbers[[0, 2]], "ab")
    assert not whole.flagged
    np.testing.assert_array_equal(whole(np.array([[nan, 0.1]])), [[[0], [0]]])


def test_a_column_without_values_is_refused():
    with pytest.raises(UserError, match="Column 'b' has no value in any training row"):
        Standardiser.fit(np.array([[1, math.nan], [2, math.nan]]), "ab")
    with pytest.raises(UserError, match="Column 'a' holds numbers too large"):
        Standardiser.fit(np.array([[1e200], [-1e200]]), "ab")


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def some_rows(count=60, **fixed):
    rng = np.random.default_rng(1)
    return [
        {"text": f"word{i % 7} number {i}", "a": rng.normal(), "b": i % 5, "y": rng.normal()}
        | fixed
        for i in range(count)
    ]


def test_a_target_that_never_changes_is_refused(tmp_path):
    path = write_csv(tmp_path / "f.csv", some_rows(y=2.5))
    with pytest.raises(UserError, match="every training row has the same 'y', 2.5"):
        load_multimodal(None, path, None, "text", ("a", "b"), "y")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ((None, None, "y"), "--numeric-columns"),
        ((None, ("a",), None), "--target"),
        ((None, ("a", "text"), "y"), "'text' cannot play two parts"),
        ((None, ("a", "z"), "y"), "no column 'z'"),
    ],
)
def test_columns_must_be_named(tmp_path, chosen, message):
    path = write_csv(tmp_path / "f.csv", some_rows())
    with pytest.raises(UserError, match=message):
        load_multimodal(None, path, None, *chosen)


def test_a_cut_file_shares_no_text(tmp_path):
    rows = some_rows() + some_rows()
    data = load_multimodal(None, write_csv(tmp_path / "f.csv", rows), None, None, ("a",), "y")
    assert len(data.train) + len(data.test) == 120
    assert not set(data.train.texts) & set(data.test.texts)
    assert abs(len(data.test) - 24) <= 2
    again = load_multimodal(None, tmp_path / "f.csv", None, None, ("a",), "y", limit_train=10)
    assert len(again.train) == 10 and again.test.texts == data.test.texts
    assert again.sha256 != data.sha256


def test_the_hubs_columns(tmp_path, monkeypatch):
    """civil_comments by its published columns, from MINISUM_DATA; another target on demand."""
    names = ("toxicity", "severe_toxicity", "obscene", "threat", "identity_attack", "insult")
    rng = np.random.default_rng(0)
    folder = tmp_path / "civil_comments"
    folder.mkdir()
    for split in ("train", "test"):
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for i in range(20):
                row = {"text": f"{split} {i}"} | dict(zip(names, rng.random(6), strict=True))
                file.write(json.dumps(row) + "\n")
    monkeypatch.setenv("MINISUM_DATA", str(tmp_path))
    data = load_multimodal("civil_comments")
    assert data.columns.numbers == names[:4] and data.columns.target == "identity_attack"
    assert len(data.train) == len(data.test) == 20
    other = load_multimodal("civil_comments", numeric_columns=("insult",), target="threat")
    assert other.train.numbers.shape == (20, 1)


def test_the_functions_of_python():
    rows = list(python_functions.rows())
    assert len(rows) > 1000 and len({row["docstring"] for row in rows}) == len(rows)
    assert all(set(row) == set(rows[0]) and row["log_lines"] >= 0 for row in rows)


def test_the_facts_of_a_signature(tmp_path, monkeypatch):
    source = '''
class A:
    @property
    async def f(self, x: int, /, y=1, *more, z: str = "", **rest) -> int:
        """Says what it does.

        At length.
        """
        def inside():
            """Two words only here, no: five."""
        return 1

def short(a): "too short"
'''
    (tmp_path / "module.py").write_text(source)
    (tmp_path / "broken.py").write_text('def f(: """a b c"""')
    monkeypatch.setattr(python_functions.sysconfig, "get_path", lambda name: str(tmp_path))
    first, second = python_functions.rows()
    numbers = [first[name] for name in python_functions.NUMBERS]
    assert numbers == [4, 2, 1, 2, 3, 1, 1, 1]
    assert math.isclose(first["log_lines"], math.log(4))  # def, def, its docstring, return
    assert second["docstring"].startswith("Two words") and second["depth"] == 2
