"""The corpus that every machine has: the docstrings of the Python that runs it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from labelled_files import without_hub

from data.generated import python_docs
from data.sets.classification import load_classification
from minisum.errors import UserError
from minisum.text.splits import text_key

ROOT = Path(__file__).parents[2]
UNWANTED = {"tkinter", "turtle", "idlelib", "antigravity", "this"}  # what importing all would bring


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    return without_hub(monkeypatch)


@pytest.fixture(scope="module")
def docs():
    return load_classification()


def test_python_docs(docs):
    assert docs.name == "python_docs"
    assert len(docs.class_names) == 20 and docs.class_names == sorted(docs.class_names)
    assert {"email", "logging", "unittest"} <= set(docs.class_names)
    train, test = docs.splits["train"], docs.splits["test"]
    sizes = np.bincount(train.labels), np.bincount(test.labels)
    assert min(sizes[0]) > 30 and min(sizes[1]) > 5
    assert len(train) > 2000 and sizes[0].max() < 0.25 * sizes[0].sum()
    keys = [text_key(text) for text in train.texts + test.texts]
    assert len(set(keys)) == len(keys)
    assert all(len(key.split()) >= python_docs.MIN_WORDS for key in keys)


def test_python_docs_are_the_docstrings(docs):
    import logging

    train, test = docs.splits["train"], docs.splits["test"]
    position = [text_key(t) for t in train.texts + test.texts].index(
        text_key(logging.Formatter.formatTime.__doc__)
    )
    labels = np.concatenate([train.labels, test.labels])
    assert docs.class_names[labels[position]] == "logging"


def test_another_process_reads_the_same_and_imports_none_of_it(docs):
    program = (
        "import sys; from data.sets.classification import load_classification as l;"
        f"print(l().sha256, {UNWANTED} & {{*sys.modules}})"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "77", "MINISUM_DATA": ""},
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    assert result.stdout.strip() == f"{docs.sha256} set()"


def test_documents():
    before = {*sys.modules}
    documents = {row["name"]: row["text"] for row in python_docs.documents()}
    assert not UNWANTED & ({*sys.modules} - before)
    assert "lambda" in documents["topics/lambda"]
    assert documents["logging/handlers.py"].startswith("Additional handlers for the logging")
    assert not any(name.startswith(("test/", "site-packages/")) for name in documents)
    assert sum(map(len, documents.values())) > 1_000_000
    assert all(text.strip() for text in documents.values())


def test_a_library_without_source(monkeypatch, tmp_path):
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(tmp_path))
    (tmp_path / "broken.py").write_text("def f(:\n  '''doc'''")
    (tmp_path / "binary.py").write_bytes(b"'''\0'''")
    for load in (python_docs.rows, python_docs.documents):
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
    assert sorted((row["text"], row["label"]) for row in python_docs.rows()) == [
        ("Package two also has texts.", "two"),
        ("The class A of package one.", "one"),
        ("The function F of package one ?.", "one"),
    ]
