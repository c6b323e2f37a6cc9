"""What a reader meets stays within its limits: frames, functions, modules and lines."""

import subprocess
import sys

from tests.house import ROOT


def test_no_limit_is_exceeded():
    child = subprocess.run(
        [sys.executable, "-m", "tests.house"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    exceeded = [line for line in child.stdout.splitlines() if line.endswith("exceeded")]
    assert child.returncode == 0, "\n".join(exceeded) or child.stderr
