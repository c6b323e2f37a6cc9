"""python -m train.classifier --max-len 1000000, on a document that long."""

import json

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from cli_runs import call

import minisum

N = 1_000_000
WORDS = ["small", "meow", "big", "sees"]


def test_a_document_of_a_million_tokens(corpus, tmp_path):
    rng = np.random.default_rng(0)
    rows = corpus.read_text(encoding="utf-8").splitlines()[:60]
    data, out = tmp_path / "texts.jsonl", tmp_path / "run"
    rows.append(json.dumps({"text": " ".join(rng.choice(WORDS, N)), "label": "cat"}))
    data.write_text("\n".join(rows), encoding="utf-8")
    flags = ["--max-len", N, "--width", 4, "--batch-size", 8, "--threads", 2, "--epochs", 1]
    assert call("--data", data, "--out", out, "--pooling", "mean", *flags) == 0
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(np.isfinite(json.loads(line)["train_loss"]) for line in lines)

    run, n = minisum.load(out), 50_000
    assert run.params["positions"].shape == (512, 4)  # not a table of a million rows
    encoded = run.reader.encode([" ".join(rng.choice(WORDS, n))])
    ids, params = encoded[0], {name: a.astype(float) for name, a in run.params.flat.items()}
    assert len(ids) == n
    factor = params["positions"][np.arange(n) % 512] + 1
    u = np.maximum((params["embedding"][ids] * factor) @ params["project.W"].T, 0)
    wanted = u.mean(axis=0) @ params["head.W"].T + params["head.b"]
    np.testing.assert_allclose(run.logits_of(encoded)[0], wanted, rtol=1e-4, atol=1e-5)
