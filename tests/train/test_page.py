"""python -m train.page: one file without network; the browser shows what the run says."""

import html
import json
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

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TEXTS = (
    "The small, OLD one says Meow! <b> & [PAD] [UNK] cow\tdog\nnew",
    "unknown wörter ΟΔΟΣ İ and moo " * 3,
    " ",
)
FLAGS = {
    "summation": [],
    "mean": ["--mixer", "mean_embedding", "--tokenizer", "word"],
    "published": ["--recipe", "published", "--max-len", "12", "--width", "8", "--lr", "0.02"],
}


@pytest.fixture(scope="module", params=FLAGS)
def made(request, corpus, tmp_path_factory):
    """(run, its page) of a small classifier."""
    folder = tmp_path_factory.mktemp(request.param)
    flags = ["--width", 8, "--max-len", 12, "--epochs", 3, "--threads", 1, "--lr", 0.02]
    assert call("--data", corpus, *flags, *FLAGS[request.param], "--out", folder / "run") == 0
    assert page.main([str(folder / "run"), "--out", str(folder / "page.html")]) == 0
    return minisum.load(folder / "run"), folder / "page.html"


def test_one_file_without_addresses(made):
    run, path = made
    text = path.read_text(encoding="utf-8")
    elsewhere = text.replace('xmlns="http://www.w3.org/2000/svg"', "")  # a name, not an address
    assert not re.search(r"https?:|src=|@import|url\(|fetch|import\(", elsewhere)
    assert text.count("<svg") >= 2 and "val accuracy" in text
    script = re.findall(r"<script>\n(.*?)</script>", text, re.DOTALL)[-1]
    assert len(script.splitlines()) <= 75
    model = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    assert model["classes"] == run.classes and model["max_len"] == 12
    assert len(model["words"]) == run.tokenizer.get_vocab_size()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("text", TEXTS)
def test_the_browser_shows_what_the_run_says(made, tmp_path, text):
    run, path = made
    address = f"{path.as_uri()}#{urllib.parse.quote(text)}"
    child = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}",
         "--dump-dom", address],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    shown = re.findall(r'<span[^>]* data-share="([^"]*)"[^>]*>(.*?)<small>', child.stdout)
    found = run.explain(text)
    assert [html.unescape(word) for _, word in shown] == found.tokens
    shares = np.array([float(share) for share, _ in shown])
    np.testing.assert_allclose(shares, found.towards(), atol=1e-3)
    label = re.search(r'<b id="label">(.*?)</b>', child.stdout)[1]
    assert label == found.label
    probabilities = [float(p) for p in re.findall(r'data-p="([^"]*)"', child.stdout)]
    expected = np.sort(run.predict_proba([text])[0])[::-1]
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)


def test_a_model_without_exact_shares_is_refused(corpus, tmp_path, capsys):
    flags = ["--width", 8, "--max-len", 12, "--epochs", 1, "--threads", 1, "--mixer", "attention"]
    assert call("--data", corpus, *flags, "--out", tmp_path / "run") == 0
    assert page.main([str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 2
    assert "sum their tokens" in capsys.readouterr().err and not (tmp_path / "page.html").exists()
