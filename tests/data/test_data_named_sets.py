"""Sets by name: the folder MINISUM_DATA, then the hub; 20 Newsgroups without what gives it away."""

import gzip
import json
import sys
import types
from pathlib import Path

import pytest
from labelled_files import without_hub, write_csv, write_jsonl

from data.sets import cleaning, registry
from data.sets.classification import DEFAULT, NAMES, load_classification, make_splits
from data.sets.forecast import load_series
from data.sets.language import load_language
from data.sets.multimodal import load_multimodal
from minisum.errors import UserError


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    return without_hub(monkeypatch)


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
    train, test = data.splits["train"], data.splits["test"]
    assert train.labels.tolist() == [0, 1, 2, 3] * 2
    assert (test.texts, test.labels.tolist()) == (["one", ""], [3, 0])
    few = load_classification("ag_news", limit_train=4, limit_test=1)
    assert (len(few.splits["train"]), len(few.splits["test"])) == (4, 1)
    assert few.class_names == data.class_names and few.sha256 != data.sha256
    assert make_splits(few.name, few.class_names, train, test, 4, 1).sha256 == few.sha256


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


def test_reuters_has_the_topics_of_its_files(tmp_path, monkeypatch):
    """R8 by its names; the 46 of Keras, whose file has numbers only, by these."""
    monkeypatch.setenv("MINISUM_DATA", str(tmp_path))
    for count, names in (
        (8, list(registry.SETS["reuters"].class_names)),
        (46, [*map(str, range(46))]),
    ):
        rows = [{"text": f"t{i}", "label": i % count} for i in range(2 * count)]
        for split in ("train", "test"):
            write_jsonl(tmp_path / "reuters" / f"{split}.jsonl", rows)
        assert load_classification("reuters").class_names == names


def fake_hub(monkeypatch, answer):
    def load_dataset(hub_id, config, *, revision, split):
        return answer(hub_id, config, revision, split)

    module = types.SimpleNamespace(load_dataset=load_dataset, __spec__=True)
    monkeypatch.setitem(sys.modules, "datasets", module)


@pytest.mark.parametrize("name", [name for name in NAMES if name != DEFAULT])
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
    entry = registry.SETS[name]
    assert asked == [(entry.hub, entry.config, entry.revision, s) for s in ("train", "test")]
    assert data.splits["train"].texts == data.splits["test"].texts == ["a", "b", "c"]
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


@pytest.mark.parametrize(
    ("task", "load"),
    [
        ("classification", load_classification),
        ("language", load_language),
        ("multimodal", load_multimodal),
        ("forecast", load_series),
    ],
)
def test_an_unknown_name(task, load):
    with pytest.raises(UserError, match="no data set 'mnist'") as caught:
        load("mnist")
    assert all(name in str(caught.value) for name in registry.names(task))
    other = {"forecast": "imdb"}.get(task, "ETTh1")  # a set, but of another task
    with pytest.raises(UserError, match=f"no data set '{other}'"):
        load(other)


def test_a_set_that_the_hub_lacks_is_not_looked_for_there(monkeypatch):
    fake_hub(monkeypatch, None)
    with pytest.raises(UserError, match="civil_comments_spans is not on this machine.*no copy"):
        load_multimodal("civil_comments_spans")


def test_a_set_of_one_split_may_be_a_file_called_like_it(tmp_path, monkeypatch):
    """ETTh1/ETTh1.csv as its authors name it, ETTh1/train.csv as the hub does."""
    monkeypatch.setenv("MINISUM_DATA", str(tmp_path))
    for number, stem in enumerate(("train", "ETTh1"), start=1):
        rows = [f"2016-07-01 {hour:02}:00,{number}" for hour in range(3)]
        (tmp_path / "ETTh1").mkdir(exist_ok=True)
        write_csv(tmp_path / "ETTh1", rows, "date,OT", f"{stem}.csv")
        assert load_series("ETTh1").values.tolist() == [[number]] * 3
    (tmp_path / "imdb").mkdir()
    write_csv(tmp_path / "imdb", ["one,1"], name="imdb.csv")  # of two splits: which one?
    assert registry.local_file(registry.SETS["imdb"], "train") is None


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
    assert cleaning.strip_message(MESSAGES[0]) == "\nMy own words.\n\nMore."
    assert cleaning.strip_message(MESSAGES[1]) == "One paragraph only"
    assert cleaning.is_raw(MESSAGES[:2])
    assert not cleaning.is_raw([cleaning.strip_message(m) for m in MESSAGES])


def test_stripping_equals_scikit_learn(no_hub):
    theirs = pytest.importorskip("sklearn.datasets._twenty_newsgroups")
    messages = list(MESSAGES)
    if no_hub and (path := Path(no_hub, "20newsgroups", "test.jsonl.gz")).exists():
        with gzip.open(path, "rt", encoding="utf-8") as file:
            messages += [json.loads(line)["text"] for line in file]
    for message in messages:
        assert cleaning.strip_header(message) == theirs.strip_newsgroup_header(message)
        assert cleaning.strip_footer(message) == theirs.strip_newsgroup_footer(message)
        assert cleaning.strip_quotes(message) == theirs.strip_newsgroup_quoting(message)


def test_raw_messages_are_stripped_and_bare_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MINISUM_DATA", str(tmp_path))
    for split, text in (("train", "From: a\nLines: 1\n\nbody"), ("test", "body\n\nmore")):
        rows = [{"text": text, "label": i % 2} for i in range(4)]
        write_jsonl(tmp_path / "20newsgroups" / f"{split}.jsonl", rows)
    data = load_classification("20newsgroups")
    assert set(data.splits["train"].texts) == {"body"}
    assert set(data.splits["test"].texts) == {"body\n\nmore"}


@pytest.mark.parametrize(
    ("name", "classes", "sizes"), [("ag_news", 4, None), ("20newsgroups", 20, (11314, 7532))]
)
def test_real_corpora(no_hub, monkeypatch, name, classes, sizes):
    if not no_hub or not Path(no_hub, name).is_dir():
        pytest.skip(f"{name} is not in MINISUM_DATA")
    monkeypatch.setenv("MINISUM_DATA", no_hub)
    data = load_classification(name)
    assert len(data.class_names) == classes
    train, test = data.splits["train"], data.splits["test"]
    assert set(train.labels) == set(test.labels) == set(range(classes))
    if sizes:
        assert (len(train), len(test)) == sizes
        assert "alt.atheism" in data.class_names
        assert not cleaning.is_raw(train.texts)


def test_the_page_lists_every_set():
    """README names each set, its tasks and its address as the table does."""
    commands = {"classification": "classifier", "language": "causal"}
    page = Path(registry.__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    for entry in registry.TABLE:
        if not entry.splits:
            assert f"- [`{entry.name}`]" in page
            continue
        (line,) = (line for line in lines if f"`{entry.name}`" in line.split("|")[1])
        tasks = ", ".join(commands.get(task, task) for task in entry.tasks.split())
        assert line.split("|")[2].strip() == tasks
        assert (f"`{entry.hub}`" if entry.hub else "no copy") in line.split("|")[3]
