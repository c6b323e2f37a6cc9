"""Files of labelled text become texts and class numbers, the same on every machine."""

import hashlib

import numpy as np
import pytest
from labelled_files import without_hub, write_csv

from data.sets.classification import Examples, load_classification, make_splits
from minisum.errors import UserError


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    return without_hub(monkeypatch)


def test_a_file_is_split_by_content(tmp_path):
    rows = [f"text number {i // 2},{'spam' if i % 4 < 2 else 'ham'}" for i in range(200)]
    data = load_classification(data_file=write_csv(tmp_path, rows))
    assert data.class_names == ["ham", "spam"]
    train, test = data.splits["train"], data.splits["test"]
    assert len(train) == 160 and len(test) == 40 and len(data.splits["val"]) == 0
    assert not set(train.texts) & set(test.texts)
    assert train.labels.dtype == test.labels.dtype == np.int32
    assert np.bincount(test.labels).tolist() == [20, 20]
    for text, label in zip(train.texts, train.labels, strict=True):
        assert f"{text},{data.class_names[label]}" in rows
    assert load_classification(data_file=write_csv(tmp_path, rows), seed=9).sha256 == data.sha256


def test_validation_is_held_out_of_the_training_examples(tmp_path):
    """Its texts are not trained on, the test stays, and the fingerprint is that of the data."""
    rows = [f"text number {i // 2},{'spam' if i % 4 < 2 else 'ham'}" for i in range(200)]
    path = write_csv(tmp_path, rows)
    whole = load_classification(data_file=path)
    first, again, other = (
        load_classification(data_file=path, validation=0.25, seed=seed) for seed in (0, 0, 1)
    )
    train, val = first.splits["train"], first.splits["val"]
    assert (len(train), len(val)) == (120, 40) and np.bincount(val.labels).tolist() == [20, 20]
    assert not set(train.texts) & set(val.texts)
    assert sorted(train.texts + val.texts) == sorted(whole.splits["train"].texts)
    assert first.splits["test"].texts == whole.splits["test"].texts
    assert val.texts == again.splits["val"].texts != other.splits["val"].texts
    assert first.sha256 == whole.sha256 == other.sha256
    with pytest.raises(UserError, match="between 0 and 1"):
        load_classification(data_file=path, validation=1.0)


def test_a_test_file(tmp_path):
    train = write_csv(tmp_path, [f"text {i},{i % 12}" for i in range(60)])
    test = write_csv(tmp_path, ["one,11", "two,2"], name="test.csv")
    data = load_classification(data_file=train, test_file=test)
    assert data.class_names == [str(i) for i in range(12)]
    test_set = data.splits["test"]
    assert (test_set.texts, test_set.labels.tolist()) == (["one", "two"], [11, 2])
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
    with pytest.raises(UserError, match="only the column 'text'"):
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
        train = Examples(list(texts), np.array(labels))
        test = Examples(list(test), np.zeros(len(test), int))
        return make_splits("name", names, train, test).sha256

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
