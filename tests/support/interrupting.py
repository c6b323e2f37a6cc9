"""Ctrl-C for a command that works through cells, once the first of them is there."""

import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def interrupted(module, arguments, out):
    """Exit status and standard error of `python -m module` on the folder `out`."""
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments, "--out", str(out)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("cells/*.json")):
        assert child.poll() is None and time.monotonic() < deadline, "no cell was finished"
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    return child.returncode, said
