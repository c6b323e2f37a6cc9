"""The laboratory: its Python half here, its page in Chromium where MINISUM_PYODIDE is a folder."""

import functools
import json
import os
import queue
import re
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from test_page import CHROMIUM

from minisum import op_table
from train.page import __main__ as page
from train.page import laboratory, of_library

PYODIDE = os.environ.get("MINISUM_PYODIDE")
ANIMALS = ("cat\tthe {} one says meow", "dog\ta {} one says woof", "cow\tmoo, {}! it says")
LINES = "\n".join(ANIMALS[i % 3].format(f"n{i}") for i in range(120))


def call(name, *arguments):
    """What the page gets from a function of the laboratory."""
    return json.loads(getattr(laboratory, name)(*arguments))


def test_a_classifier_is_trained_and_explained():
    about = call("start", LINES + "\nno tab\n\tno label\ndog\t ")
    assert about["classes"] == ["cat", "cow", "dog"]
    assert about["texts"] + about["held_out"] == 120 and about["held_out"] == 24
    first = call("train", 5)
    for _ in range(8):
        last = call("train", 5)
    assert last["step"] == 45 and last["train_loss"] < 0.8 * first["train_loss"]
    assert last["val_accuracy"] == 1 and last["val_loss"] < first["val_loss"]
    assert last["curves"].count("<polyline") == 3
    found = call("explain", "Woof says the ONE <b> zebra")
    assert found["tokens"] == ["Woof", "says", "the", "ONE", "<", "b", ">", "zebra"]
    shares, own = np.array(found["shares"]), laboratory.training
    ids = own.encode(laboratory.words_of("woof says the one <b> zebra"))[None]
    batch = {"ids": ids, "mask": np.ones(ids.shape, bool)}
    logits = own.model.predict(own.params, batch)[0]
    np.testing.assert_allclose(shares.sum(axis=0) + found["bias"], logits, rtol=1e-4, atol=1e-5)
    assert logits.argmax() == 2 and shares[0, 2] > shares[1:, 2].max()
    assert call("explain", " ")["tokens"] == []


def test_what_is_trained_on_is_not_asked():
    call("start", LINES)
    own = laboratory.training
    assert not set(own.train) & set(own.held)
    unseen = {word for i in own.held for word in own.texts[i] if word == laboratory.UNKNOWN}
    assert unseen  # words of held-out texts alone have no number


@pytest.mark.parametrize("lines", ("", "cat\tmeow", "cat\tmeow\ncat\tpurr", "no tabs\nat all"))
def test_texts_of_fewer_than_two_classes_are_refused(lines):
    assert "two classes" in call("start", lines)["error"]


def test_the_examples():
    sources = laboratory.EXAMPLES
    assert call("run", sources["a right gradient"])["right"] is True
    wrong = call("run", sources["a wrong gradient"])
    assert wrong["right"] is False and "b, " in wrong["text"] and "1 wrong" not in wrong["text"]
    attention = call("run", sources["an operation of the library"])
    assert attention["right"] is True and "softmax" in attention["text"].splitlines()[0]
    every = call("run", sources["every operation of the library"])["text"].splitlines()
    assert len(every) == len(op_table.EXAMPLES) and all(line[:6] == "right " for line in every)


@pytest.mark.parametrize(
    "source, right, text",
    (
        ("print(1)\n2 + 3", None, "1\n5\n"),
        ("x = 1\n", None, ""),
        ("", None, ""),
        ("x = (\n", False, "SyntaxError"),
        ("\n\nnp.nothing", False, "line 3: AttributeError"),
        ("gradcheck(lambda x: x, rng.normal(size=3))", False, "line 1: TypeError"),
    ),
)
def test_a_program_that_is_typed_in(source, right, text):
    found = call("run", source)
    assert found["right"] is right
    assert text in found["text"] if right is False else found["text"] == text


@pytest.fixture
def few_texts(monkeypatch):
    packages = [(f"p{i % 8}", f"Text number {i} " + "word " * 30) for i in range(64)]
    monkeypatch.setattr(of_library, "docstrings", lambda: iter(packages))


def test_the_archive_is_enough(tmp_path):
    (tmp_path / "library.zip").write_bytes(of_library.library())
    assert of_library.library() == (tmp_path / "library.zip").read_bytes()
    program = (
        "import sys, numpy; before = set(sys.modules); sys.path.insert(0, 'library.zip')\n"
        "from train.page import laboratory; import minisum\n"
        "assert 'library.zip' in minisum.__file__\n"
        f"print(laboratory.start({LINES!r})); print(laboratory.train(2))\n"
        "print(laboratory.run('gradcheck(ops.relu, grid(rng, (3,)), exact=True)'))\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(n for n in names - sys.stdlib_module_names if 'cython' not in n))"
    )
    child = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    *answers, modules = child.stdout.splitlines()
    assert json.loads(answers[-1])["right"] is True
    assert modules == "['minisum', 'numpy', 'train']"


def test_the_folder(few_texts, tmp_path, capsys):
    source, out = tmp_path / "pyodide", tmp_path / "out"
    command = ["--laboratory", "--pyodide", str(source), "--out", str(out)]
    source.mkdir()
    wheel = "numpy-2.0.2.whl"
    lock = json.dumps({"packages": {"numpy": {"file_name": wheel}}})
    for name in (*of_library.PYODIDE, of_library.LOCK, "more"):
        (source / name).write_text(lock, encoding="utf-8")
    assert page.main(command) == 2
    assert f"{wheel} is missing" in capsys.readouterr().err and not out.exists()
    (source / wheel).write_text("wheel", encoding="utf-8")
    assert page.main(command) == 0
    assert "http.server" in capsys.readouterr().out
    copied = {path.name for path in (out / "pyodide").iterdir()}
    assert copied == {*of_library.PYODIDE, of_library.LOCK, wheel}
    made = (out / "index.html").read_text(encoding="utf-8")
    assert 'src="pyodide/pyodide.js"' in made and "p0\tText number 0" in made
    assert not re.search(r"https?://", made)
    command[2] = "https://example.org/pyodide/"
    assert page.main(command) == 0
    made = (out / "index.html").read_text(encoding="utf-8")
    assert 'src="https://example.org/pyodide/pyodide.js"' in made


@pytest.mark.parametrize(
    "flags", ([], ["run", "--laboratory"], ["--laboratory"], ["r", "--pyodide", "p"])
)
def test_half_a_command_is_refused(flags, tmp_path, capsys):
    assert page.main([*flags, "--out", str(tmp_path / "out")]) == 2
    assert "--laboratory and --pyodide" in capsys.readouterr().err


def answer_of(folder, page):
    """What a page of a folder, opened in Chromium, sends back to its server."""
    answers = queue.Queue()

    class Handler(SimpleHTTPRequestHandler):
        def do_POST(self):
            answers.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_error(204)

    handler = functools.partial(Handler, directory=folder)
    with ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        child = subprocess.Popen(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
             f"--user-data-dir={folder}/profile", f"http://localhost:{server.server_port}/{page}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            return answers.get(timeout=120)
        finally:
            child.terminate()
            child.wait()
            server.shutdown()


@pytest.mark.skipif(CHROMIUM is None or PYODIDE is None, reason="MINISUM_PYODIDE is no folder")
def test_in_the_browser(few_texts, tmp_path):
    command = ["--laboratory", "--pyodide", PYODIDE, "--out", str(tmp_path)]
    assert page.main(command) == 0
    made, source = tmp_path / "index.html", laboratory.EXAMPLES["every operation of the library"]
    answer = "{page: document.body.innerHTML, run: python.run(" + json.dumps(source) + ")}"
    post = f"fetch('/', {{method: 'POST', body: JSON.stringify({answer})}})"
    text, end = made.read_text(encoding="utf-8"), "train();\n}\nelement"
    assert end in text
    made.write_text(text.replace(end, f"train().then(() => {post});\n}}\nelement"), "utf-8")
    shown = json.loads(answer_of(tmp_path, "index.html#train"))
    every = json.loads(shown["run"])["text"].splitlines()
    assert len(every) == len(op_table.EXAMPLES) and all(line[:6] == "right " for line in every)
    assert "step 600: loss" in shown["page"] and "polyline" in shown["page"]
    assert shown["page"].count("data-share") > 3
