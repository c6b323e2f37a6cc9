"""python -m train.page: one file without network; the browser shows what the run says."""

import html
import json
import random
import re
import shutil
import subprocess
import urllib.parse

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from cli_runs import call

import minisum
from train.page import __main__ as page
from train.page.of_run import layers_of, plane_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
TEXTS = (
    "The small, OLD one says Meow! <b> & [PAD] [UNK] cow\tdog\nnew",
    "unknown wörter ΟΔΟΣ İ 日本語 and moo mooo ooooo " * 3,
    " ",
)
STRANGE = (
    "it's we'll I'D  don't...   \n\n x\t\ty z\x85w\u00a0v\u2028u \ufeffbom 12³½ٱ A_b-c1'2 "
    "e\u0301 x\u200dy 👩\u200d👩\u200d👧 😀 \U0001d54f ǅ ﬃ ß ẞ ſ ı İi Σς "
    "\u0345 \u24b6 ไทย देवनागरी 한국어"
)
FLAGS = {
    "summation": ["--width", 8],
    "mean": ["--mixer", "mean_embedding", "--tokenizer", "word", "--width", 7],
    "published": ["--recipe", "published", "--max-len", "12", "--width", "8", "--lr", "0.02"],
    "bpe": ["--tokenizer", "bpe", "--vocab-size", 320, "--bag-rows", 64, "--position-offset", 2,
            "--width", 6],
    "character": ["--tokenizer", "character", "--vocab-size", 300, "--positions", "add",
                  "--one-logit", "--pooling", "sqrt", "--bag-rows", 16, "--calibrate"],
}  # fmt: skip


@pytest.fixture(scope="module")
def two_classes(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("two") / "two.jsonl"
    rows = [line for line in corpus.read_text().splitlines() if "cow" not in line]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=FLAGS)
def made(request, corpus, two_classes, tmp_path_factory):
    """(run, its page) of a small classifier."""
    folder = tmp_path_factory.mktemp(request.param)
    flags = ["--width", 8, "--max-len", 12, "--epochs", 3, "--threads", 1, "--lr", 0.02]
    data = two_classes if request.param == "character" else corpus
    assert call("--data", data, *flags, *FLAGS[request.param], "--out", folder / "run") == 0
    assert page.main([str(folder / "run"), "--out", str(folder / "page.html")]) == 0
    return minisum.load(folder / "run"), folder / "page.html"


def opened(path, address=""):
    """The document that Chromium makes of a page, as text."""
    child = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu",
         f"--user-data-dir={path.parent}/profile", "--dump-dom", path.as_uri() + address],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return child.stdout


def asked(path, program):
    """What a program in the page returns: its last script is the page's own."""
    text = path.read_text(encoding="utf-8")
    script = f"document.body.textContent = JSON.stringify((() => {{ {program} }})());"
    again = path.with_name("asked.html")
    again.write_text(text.replace("</script></body>", f"{script}</script></body>"), "utf-8")
    body = re.search(r"<body[^>]*>(.*)</body>", opened(again), re.DOTALL)[1]
    return json.loads(html.unescape(body))


def test_one_file_without_addresses(made):
    run, path = made
    text = path.read_text(encoding="utf-8")
    elsewhere = text.replace('xmlns="http://www.w3.org/2000/svg"', "")  # a name, not an address
    assert not re.search(r"https?:|src=|@import|url\(|fetch|import\(", elsewhere)
    assert text.count("<svg") >= 2 and "val accuracy" in text
    model = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    assert model["classes"] == run.classes and model["max_len"] == 12
    assert len(model["words"]) == run.tokenizer.get_vocab_size()


@in_browser
def test_the_browser_shows_what_the_run_says(made):
    run, path = made
    program = """
      return texts.map(text => {
        element("text").value = text;
        update();
        const all = (kind, what) => Array.from(document.querySelectorAll(kind), what);
        return {
          words: all("#words span", span => span.firstChild.textContent),
          shares: all("#words span", span => +span.dataset.share),
          label: element("label").textContent,
          p: all("#classes .p", p => +p.dataset.p),
          tokens: cut(text),
          paths: all("#paths circle[data-at]", dot => dot.dataset.at.split(",").map(Number)),
        };
      });"""
    rng = random.Random(0)
    strange = ["".join(rng.choices(STRANGE, k=30)) for _ in range(60)]
    texts = [*TEXTS, STRANGE, *strange]
    answers = asked(path, f"const texts = {json.dumps(texts)};{program}")
    for text, shown in zip(texts, answers, strict=True):
        assert shown["tokens"] == tokens_of(run, text)
        found = run.explain(text)
        assert shown["words"] == found.tokens
        np.testing.assert_allclose(shown["shares"], found.towards(), atol=1e-3)
        assert shown["label"] == found.label
        expected = np.sort(run.predict_proba([text])[0])[::-1]
        np.testing.assert_allclose(shown["p"], expected, atol=1e-3)
        if "project" in run.params:
            paths = expected_paths(run, text)
            np.testing.assert_allclose(np.reshape(shown["paths"], paths.shape), paths, atol=2e-3)
        else:
            assert not shown["paths"]


def tokens_of(run, text):
    """[spelling, id] of all tokens of a text."""
    found = run.tokenizer.encode(text, add_special_tokens=False)
    spelled = [text[start:end] for start, end in found.offsets]
    return [list(pair) for pair in zip(spelled, found.ids, strict=True)]


def expected_paths(run, text):
    """(n, layers, 2): where the tokens of a text are in the page's plane after each layer."""
    batch = run.reader.batch(run.reader.encode([text]))
    centre, axes = plane_of(run.model, run.params)
    layers = layers_of(run.model, run.params, batch["ids"])
    counted = batch["mask"][0] if run.model.masked else slice(None)
    return np.stack([((layer[0] - centre) @ axes)[counted] for layer in layers], axis=1)


@in_browser
@pytest.mark.parametrize("made", ["summation"], indirect=True)
def test_the_text_may_stand_in_the_address(made):
    (run, path), text = made, TEXTS[0]
    shown = re.findall(
        r'<span[^>]* data-share="[^"]*"[^>]*>(.*?)<small>',
        opened(path, f"#{urllib.parse.quote(text)}"),
        re.DOTALL,
    )
    assert [html.unescape(word) for word in shown] == run.explain(text).tokens


def test_a_model_without_exact_shares_is_refused(corpus, tmp_path, capsys):
    flags = ["--width", 8, "--max-len", 12, "--epochs", 1, "--threads", 1, "--mixer", "attention"]
    assert call("--data", corpus, *flags, "--out", tmp_path / "run") == 0
    assert page.main([str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 2
    assert "sum their tokens" in capsys.readouterr().err and not (tmp_path / "page.html").exists()
