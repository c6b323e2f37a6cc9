"""Files and named sets become texts and class numbers, the same on every machine."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import newsgroups, python_docs
from data.classification import NAMES, PUBLISHED, ClassificationData, limit, load_classification
from data.columns import class_order, read_labelled
from data.splits import choose_subset, hold_out, split_validation, text_key
from minisum.errors import UserError

ROOT = Path(__file__).parents[1]
quick = settings(deadline=None, max_examples=80)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """No test reaches the network, nor a folder that the person running the tests has set."""
    real = os.environ.get("MINISUM_DATA")
    monkeypatch.delenv("MINISUM_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    return real


def write_csv(folder, rows, header="text,label", name="a.csv"):
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


# Splits


labelled_texts = st.lists(
    st.tuples(st.text("abC \n", max_size=4), st.integers(0, 3)), min_size=1, max_size=60
)


@quick
@given(labelled_texts, st.floats(0.05, 0.9), st.integers(0, 5))
def test_a_split_never_leaks(pairs, fraction, seed):
    texts, labels = zip(*pairs, strict=True)
    try:
        train, held = split_validation(texts, labels, fraction, seed)
    except UserError:
        return
    assert sorted([*train, *held]) == list(range(len(texts)))
    assert len(train) and len(held)
    assert not {text_key(texts[i]) for i in train} & {text_key(texts[i]) for i in held}
    assert {labels[i] for i in train} == set(labels)


@quick
@given(labelled_texts, st.randoms(use_true_random=False))
def test_a_split_depends_on_content_alone(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    sides = []
    for rows in (pairs, shuffled):
        texts, labels = zip(*rows, strict=True)
        try:
            _, held = hold_out(texts, labels, 0.3, "salt")
        except UserError:
            held = []
        sides.append(sorted(rows[i] for i in held))
    assert sides[0] == sides[1]


def test_a_split_is_stratified_and_seeded():
    texts = [f"text {i}" for i in range(1000)]
    labels = np.repeat([0, 1, 2], [700, 250, 50])
    train, held = split_validation(texts, labels, 0.1, seed=0)
    assert np.bincount(labels[held]).tolist() == [70, 25, 5]
    again, other = (split_validation(texts, labels, 0.1, seed=s)[1] for s in (0, 1))
    assert np.array_equal(held, again)
    assert len(set(held) & set(other)) < 30
    for fraction in (0, 1, -0.1):
        with pytest.raises(UserError):
            split_validation(texts, labels, fraction, 0)


def test_too_few_texts_to_split():
    with pytest.raises(UserError, match="too few"):
        hold_out(["a", "A ", "b"], [0, 0, 1], 0.2, "")


@quick
@given(st.integers(1, 120), st.integers(0, 3))
def test_a_subset_has_the_proportions_of_the_classes(size, seed):
    labels = np.repeat([0, 1, 2, 3], [60, 30, 20, 10])
    chosen = choose_subset(labels, size, seed)
    assert len(chosen) == len(set(chosen)) == size
    share = np.bincount(labels[chosen], minlength=4) - size * np.array([60, 30, 20, 10]) / 120
    assert np.abs(share).max() < 2
    assert np.array_equal(chosen, choose_subset(labels, size, seed))


def test_subsets():
    labels = np.arange(100) % 2
    assert choose_subset(labels, None, 0).tolist() == list(range(100))
    assert choose_subset(labels, 1000, 0).tolist() == list(range(100))
    assert not np.array_equal(choose_subset(labels, 10, 0), choose_subset(labels, 10, 1))
    with pytest.raises(UserError, match="at least 1"):
        choose_subset(labels, 0, 0)


# Columns


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["label", "text"], ("text", "label")),
        (["Review", "Class"], ("Review", "Class")),
        (["id", "text", "label"], ("text", "label")),
        (["text", "body", "label", "topic"], ("text", "label")),
        (["sentence", "x"], ("sentence", "x")),
        (["x", "category"], ("x", "category")),
        (["x", "y"], ("y", "x")),
    ],
)
def test_columns_are_guessed_when_obvious(columns, expected):
    rows = [dict(zip(columns, (f"a{i % 2}", f"b{i}"), strict=False)) for i in range(9)]
    rows = [{c: row.get(c, "z") for c in columns} for row in rows]
    data = read_labelled(rows, "file")
    assert (data.text_column, data.label_column) == expected
    assert data.texts == [row[expected[0]] for row in rows]
    assert data.labels == [row[expected[1]] for row in rows]


@pytest.mark.parametrize(
    "columns", [["a", "b", "c"], ["body", "review", "label"], ["text", "id", "x"], ["text"]]
)
def test_ambiguous_columns_are_listed(columns):
    with pytest.raises(UserError, match="not obvious") as caught:
        read_labelled([dict.fromkeys(columns, "1")], "file")
    assert all(repr(column) in str(caught.value) for column in columns)


def test_named_columns():
    rows = [{"body": "a", "review": "b", "topic": "c", "label": "d"}]
    data = read_labelled(rows, "file", text_column="review", label_column="topic")
    assert (data.texts, data.labels) == (["b"], ["c"])
    with pytest.raises(UserError, match="no column 'missing'; it has 'body', 'review'"):
        read_labelled(rows, "file", text_column="missing")
    with pytest.raises(UserError, match="cannot be both"):
        read_labelled(rows, "file", text_column="body", label_column="body")
    assert read_labelled([{"label": "words", "x": 1}], "f", text_column="label").labels == ["1"]


def test_a_file_without_header_is_noticed(tmp_path):
    rows = [f"{i % 2},some words {i}" for i in range(20)]
    with pytest.raises(UserError, match="no header"):
        load_classification(data_file=write_csv(tmp_path, rows[1:], header=rows[0]))


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"text": "", "label": 1}, "'text' is empty"),
        ({"text": " \n", "label": 1}, "'text' is empty"),
        ({"label": 1}, "'text' is empty"),
        ({"text": 5, "label": 1}, "holds int, not text"),
        ({"text": "a", "label": None}, "'label' is empty"),
        ({"text": "a", "label": "  "}, "'label' is empty"),
        ({"text": "a", "label": float("nan")}, "'label' is empty"),
        ({"text": "a"}, "'label' is empty"),
        ({"text": "a", "label": [1, 2]}, "not a class"),
        ({"text": "a", "label": 0.5}, "not a class"),
        ({"text": "a", "label": float("inf")}, "not a class"),
        ({"text": "a \ud800", "label": 1}, "surrogate"),
        ({"text": "a", "label": "\ud800"}, "surrogate"),
    ],
)
def test_bad_cells_are_named(row, part):
    with pytest.raises(UserError, match=part) as caught:
        read_labelled([{"text": "fine", "label": 0}, row], "a.jsonl")
    assert "a.jsonl, row 2" in str(caught.value)


def test_class_order():
    assert class_order(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert class_order(["b", "a", "10", "9"]) == ["10", "9", "a", "b"]


# Files


def test_a_file_is_split_by_content(tmp_path):
    rows = [f"text number {i // 2},{'spam' if i % 4 < 2 else 'ham'}" for i in range(200)]
    data = load_classification(data_file=write_csv(tmp_path, rows))
    assert data.class_names == ["ham", "spam"]
    assert len(data.train_texts) == 160 and len(data.test_texts) == 40
    assert not set(data.train_texts) & set(data.test_texts)
    assert data.train_labels.dtype == data.test_labels.dtype == np.int32
    assert np.bincount(data.test_labels).tolist() == [20, 20]
    for text, label in zip(data.train_texts, data.train_labels, strict=True):
        assert f"{text},{data.class_names[label]}" in rows
    assert load_classification(data_file=write_csv(tmp_path, rows), seed=9).sha256 == data.sha256


def test_a_test_file(tmp_path):
    train = write_csv(tmp_path, [f"text {i},{i % 12}" for i in range(60)])
    test = write_csv(tmp_path, ["one,11", "two,2"], name="test.csv")
    data = load_classification(data_file=train, test_file=test)
    assert data.class_names == [str(i) for i in range(12)]
    assert (data.test_texts, data.test_labels.tolist()) == (["one", "two"], [11, 2])
    unseen = write_csv(tmp_path, ["one,12"], name="unseen.csv")
    with pytest.raises(UserError, match="'12', which the training set lacks"):
        load_classification(data_file=train, test_file=unseen)
    other = write_csv(tmp_path, ["one,1"], header="text,class", name="other.csv")
    with pytest.raises(UserError, match="no column 'label'"):
        load_classification(data_file=train, test_file=other)


def test_refused_files(tmp_path):
    with pytest.raises(UserError, match="one class only"):
        load_classification(data_file=write_csv(tmp_path, [f"text {i},1" for i in range(9)]))
    with pytest.raises(UserError, match="of its own"):
        load_classification(data_file=write_csv(tmp_path, [f"text {i},{i}" for i in range(30)]))
    with pytest.raises(UserError, match="too few"):
        load_classification(data_file=write_csv(tmp_path, ["a,1", "b,2"]))
    with pytest.raises(UserError, match="not obvious"):
        path = tmp_path / "a.txt"
        path.write_text("one\ntwo\n")
        load_classification(data_file=path)


def test_options_that_do_not_go_together(tmp_path):
    path = write_csv(tmp_path, ["a,1"])
    with pytest.raises(UserError, match="not both"):
        load_classification("ag_news", data_file=path)
    for option in ("test_file", "text_column", "label_column"):
        with pytest.raises(UserError, match=option.replace("_", " ")):
            load_classification(**{option: "x"})


def test_sha256_follows_the_content():
    def build(texts=("a", "b"), labels=(0, 1), test=("c",), names=("x", "y")):
        return ClassificationData(
            "name", list(texts), np.array(labels), list(test), np.array([0] * len(test)), names
        ).sha256

    variants = [
        build(),
        build(texts=("b", "a")),
        build(texts=("ab", "")),
        build(labels=(1, 0)),
        build(names=("x", "z")),
        build(texts=("a", "b", "c"), labels=(0, 1, 0), test=()),
    ]
    assert len(set(variants)) == len(variants)

    def sized(part):
        return len(part).to_bytes(8, "little") + part

    two, one = (number.to_bytes(8, "little") for number in (2, 1))
    train = two + b"".join(map(sized, (b"a", b"x", b"b", b"y")))
    test = one + sized(b"c") + sized(b"x")
    assert build() == hashlib.sha256(train + test).hexdigest()


# Named sets


def rows_of(count, **more):
    return [{"text": f"t{i}", "label": i % 4} | more for i in range(count)]


def test_minisum_data_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("MINISUM_DATA", str(tmp_path))
    write_jsonl(tmp_path / "ag_news" / "train.jsonl.gz", rows_of(8))
    with pytest.raises(UserError, match="holds a train file but no test file"):
        load_classification("ag_news")
    write_csv(tmp_path / "ag_news", ["one,3", ",0"], name="test.csv")
    data = load_classification("ag_news")
    assert data.class_names == ["World", "Sports", "Business", "Sci/Tech"]
    assert data.train_labels.tolist() == [0, 1, 2, 3] * 2
    assert (data.test_texts, data.test_labels.tolist()) == (["one", ""], [3, 0])
    few = load_classification("ag_news", limit_train=4, limit_test=1)
    assert (len(few.train_texts), len(few.test_texts)) == (4, 1)
    assert few.class_names == data.class_names and few.sha256 != data.sha256
    assert limit(data, train=4, test=1).sha256 == few.sha256


def test_label_text_names_the_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("MINISUM_DATA", str(tmp_path))
    rows = [row | {"label_text": "abcd"[row["label"]]} for row in rows_of(8)]
    for split in ("train", "test"):
        write_jsonl(tmp_path / "20newsgroups" / f"{split}.jsonl", rows)
    assert load_classification("20newsgroups").class_names == ["a", "b", "c", "d"]
    rows[5]["label_text"] = "z"
    write_jsonl(tmp_path / "20newsgroups" / "train.jsonl", rows)
    with pytest.raises(UserError, match="row 6: label 1 is named 'z' here and 'b' before"):
        load_classification("20newsgroups")


def fake_hub(monkeypatch, answer):
    def load_dataset(hub_id, config, *, revision, split):
        return answer(hub_id, config, revision, split)

    module = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", module)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_hub_is_asked_for_what_the_table_says(monkeypatch, name):
    asked = []

    class Table:
        def iter(self, batch_size):
            yield {"text": ["a", "b"], "label": [0, 1]}
            yield {"text": ["c"], "label": [0]}

    def answer(*arguments):
        asked.append(arguments)
        return Table()

    fake_hub(monkeypatch, answer)
    data = load_classification(name)
    source = PUBLISHED[name].source
    assert asked == [(source.hub_id, source.config, source.revision, s) for s in ("train", "test")]
    assert data.train_texts == data.test_texts == ["a", "b", "c"]
    if name == "imdb":
        assert data.class_names == ["negative", "positive"]


def test_an_unreachable_hub(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="MINISUM_DATA is not set.*pip install datasets"):
        load_classification("imdb")

    def answer(*_):
        raise ConnectionError("no route\n to host")

    fake_hub(monkeypatch, answer)
    monkeypatch.setenv("MINISUM_DATA", str(tmp_path))
    with pytest.raises(UserError, match="hub: no route to host") as caught:
        load_classification("imdb")
    assert str(tmp_path / "imdb") in str(caught.value)
    assert "stanfordnlp/imdb" in str(caught.value)


def test_an_unknown_name():
    with pytest.raises(UserError) as caught:
        load_classification("mnist")
    assert all(name in str(caught.value) for name in NAMES)


# 20 Newsgroups

MESSAGES = [
    "From: a@b (A)\nSubject: Re: x\nLines: 9\n\nIn article <1> c writes:\n> quoted\n| too\n\n"
    "My own words.\nHe said: no.\n\nMore.\n--\nA. Signature\na@b",
    "From: a\n\nOne paragraph only",
    "no header at all",
    "From: a\n\n\n\n--\n",
    "From: a\n\nbody\n\n----\n\nsignature\n   \n",
    "From: a\n\nbody\n - - \nstill body",
    "",
    "\n\n",
]


def test_stripped_messages():
    assert newsgroups.strip_message(MESSAGES[0]) == "\nMy own words.\n\nMore."
    assert newsgroups.strip_message(MESSAGES[1]) == "One paragraph only"
    assert newsgroups.is_raw(MESSAGES[:2])
    assert not newsgroups.is_raw([newsgroups.strip_message(m) for m in MESSAGES])


def test_stripping_equals_scikit_learn(no_hub):
    theirs = pytest.importorskip("sklearn.datasets._twenty_newsgroups")
    messages = list(MESSAGES)
    if no_hub and (path := Path(no_hub, "20newsgroups", "test.jsonl.gz")).exists():
        with gzip.open(path, "rt", encoding="utf-8") as file:
            messages += [json.loads(line)["text"] for line in file]
    for message in messages:
        assert newsgroups.strip_header(message) == theirs.strip_newsgroup_header(message)
        assert newsgroups.strip_footer(message) == theirs.strip_newsgroup_footer(message)
        assert newsgroups.strip_quotes(message) == theirs.strip_newsgroup_quoting(message)


def test_raw_messages_are_stripped_and_bare_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MINISUM_DATA", str(tmp_path))
    for split, text in (("train", "From: a\nLines: 1\n\nbody"), ("test", "body\n\nmore")):
        rows = [{"text": text, "label": i % 2} for i in range(4)]
        write_jsonl(tmp_path / "20newsgroups" / f"{split}.jsonl", rows)
    data = load_classification("20newsgroups")
    assert set(data.train_texts) == {"body"} and set(data.test_texts) == {"body\n\nmore"}


# The default corpus


@pytest.fixture(scope="module")
def docs():
    return load_classification()


def test_python_docs(docs):
    assert docs.name == "python_docs"
    assert len(docs.class_names) == 20 and docs.class_names == sorted(docs.class_names)
    assert {"email", "logging", "unittest"} <= set(docs.class_names)
    sizes = np.bincount(docs.train_labels), np.bincount(docs.test_labels)
    assert min(sizes[0]) > 30 and min(sizes[1]) > 5
    assert len(docs.train_texts) > 2000 and sizes[0].max() < 0.25 * sizes[0].sum()
    keys = [text_key(text) for text in docs.train_texts + docs.test_texts]
    assert len(set(keys)) == len(keys)
    assert all(len(key.split()) >= python_docs.MIN_WORDS for key in keys)


def test_python_docs_are_the_docstrings(docs):
    import logging

    position = [text_key(t) for t in docs.train_texts + docs.test_texts].index(
        text_key(logging.Formatter.formatTime.__doc__)
    )
    labels = np.concatenate([docs.train_labels, docs.test_labels])
    assert docs.class_names[labels[position]] == "logging"


def test_python_docs_are_the_same_in_every_process(docs):
    program = "from data.classification import load_classification as l; print(l().sha256)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "77", "MINISUM_DATA": ""},
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    assert result.stdout.strip() == docs.sha256


def test_reading_the_library_imports_none_of_it():
    program = (
        "import sys; from data import python_docs; python_docs.load(); python_docs.documents();"
        "print({'tkinter', 'turtle', 'idlelib', 'antigravity', 'this'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, text=True
    )
    assert result.stdout.strip() == "set()"


def test_documents():
    documents = dict(python_docs.documents())
    assert "lambda" in documents["topics/lambda"]
    assert documents["logging/handlers.py"].startswith("Additional handlers for the logging")
    assert not any(name.startswith(("test/", "site-packages/")) for name in documents)
    assert sum(map(len, documents.values())) > 1_000_000
    assert all(text.strip() for text in documents.values())


def test_a_library_without_source(monkeypatch, tmp_path):
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(tmp_path))
    (tmp_path / "broken.py").write_text("def f(:\n  '''doc'''")
    (tmp_path / "binary.py").write_bytes(b"'''\0'''")
    for load in (python_docs.load, python_docs.documents):
        with pytest.raises(UserError, match="without the source"):
            load()


def test_a_made_up_library(monkeypatch, tmp_path):
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(tmp_path))
    shared = '"""A text that two packages share with each other."""'
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "__init__.py").write_text(
        f'{shared}\nclass A:\n  """The class A of package one."""\n'
        f'  def f(self):\n    """The function F of package one \\ud800."""\n  def g(self):\n'
        f'    """the  FUNCTION f of package one \\ud801."""\n    """A string of many words."""\n'
    )
    (tmp_path / "_pytwo.py").write_text(
        f'{shared}\ndef f():\n  """Package two also has texts."""\n'
    )
    (tmp_path / "three.py").write_text('"""Too few words."""')
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "four.py").write_text('"""Tests are left out whatever they say."""')
    texts, labels, names = python_docs.load()
    assert names == ["one", "two"]
    assert sorted(zip(texts, labels.tolist(), strict=True)) == [
        ("Package two also has texts.", 1),
        ("The class A of package one.", 0),
        ("The function F of package one ?.", 0),
    ]


# Real corpora, where the person running the tests has them


@pytest.mark.parametrize(
    ("name", "classes", "sizes"), [("ag_news", 4, None), ("20newsgroups", 20, (11314, 7532))]
)
def test_real_corpora(no_hub, monkeypatch, name, classes, sizes):
    if not no_hub or not Path(no_hub, name).is_dir():
        pytest.skip(f"{name} is not in MINISUM_DATA")
    monkeypatch.setenv("MINISUM_DATA", no_hub)
    data = load_classification(name)
    assert len(data.class_names) == classes
    assert set(data.train_labels) == set(data.test_labels) == set(range(classes))
    if sizes:
        assert (len(data.train_texts), len(data.test_texts)) == sizes
        assert "alt.atheism" in data.class_names
        assert not newsgroups.is_raw(data.train_texts)
