"""minisum/runs/README.md taken at its word: its lines give the probabilities of minisum."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import tiny_runs

import minisum

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "minisum/runs/README.md").read_text(encoding="utf-8")


def test_the_lines_give_the_same_probabilities(tmp_path, monkeypatch):
    data, _, _ = tiny_runs.trained(tmp_path, "classifier")
    (tmp_path / "runs").mkdir()
    (tmp_path / "of 3").rename(tmp_path / "runs/NAME")
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    page = {}
    exec(lines, page)
    run = minisum.load("runs/NAME")
    texts = [line.split('"')[3] for line in data.read_text(encoding="utf-8").splitlines()[:20]]
    texts += ["a cat", "words that nobody has read", " ".join(["cow moo"] * 20)]
    wanted = run.predict_proba(texts)
    assert np.ptp(wanted, axis=0).min() > 0.1 and page["spec"]["class_names"] == run.classes
    found = np.stack([page["probabilities"](text).numpy() for text in texts])
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-7)
    assert len(lines.strip().splitlines()) <= 17
