"""The public surface is typed: mypy finds nothing in it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_mypy_finds_nothing(tmp_path):
    pytest.importorskip("mypy")
    use = tmp_path / "use.py"
    use.write_text(
        "import minisum\n"
        'clf = minisum.TextClassifier(width=8).fit(["a", "b"], [0, 1])\n'
        'print(minisum.load("run").predict(["a"]), clf.explain("a").shares.shape)\n'
        "print(minisum.gradcheck(minisum.ops.relu, clf.predict_proba([])))\n"
        'clf.fit("a")  # type: ignore[call-arg]\n'
        "from minisum.gradcheck import Verdict, grid\n"
        "from minisum.optim import Adam\n"
        "from minisum.params import Params\n"
        "from minisum.shards import Shards\n"
        "params = Params.from_arrays({})\n"
        "mixer = minisum.mixers.build('summation', width=8)\n"
        "loss = Shards(mixer).loss_and_grads(params, params.zeros_like(), {})\n"
        "Adam(params).step(params, 'fast')  # type: ignore[arg-type]\n",
        encoding="utf-8",
    )
    for arguments in ([], [str(use), "--warn-unused-ignores", "--disallow-untyped-calls"]):
        child = subprocess.run(
            [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), *arguments],
            cwd=ROOT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert child.returncode == 0, child.stdout + child.stderr
