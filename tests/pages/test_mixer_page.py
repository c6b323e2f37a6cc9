"""minisum/mixers/README.md taken at its word: its mixer goes through the suite of all mixers."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from minisum.gradcheck import gradcheck, grid
from minisum.saved import saved_arrays

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "minisum/mixers/README.md").read_text(encoding="utf-8")
MIXER, OPERATION = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

# Does what steps 1 and 2 of the page say, then what step 3 says.
REGISTERED = """
import importlib.util, sys
import pytest
from minisum import mixers

spec = importlib.util.spec_from_file_location("minisum.mixers.moving_average", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
mixers.TABLE["moving_average"] = mixers.Entry(
    "moving_average", "MovingAverage", can_be_bidirectional=False
)
sys.exit(pytest.main(["-x", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


def run_suite(folder, source, words):
    """pytest's exit status and output for step 3 with `source` as the mixer's file."""
    path = folder / "moving_average.py"
    path.write_text(source, encoding="utf-8")
    command = re.search(r"python -m pytest (.*) -k (\w+)\n", PAGE)
    arguments = [*command[1].split(), "-k", f"{command[2]} and {words}"]
    child = subprocess.run(
        [sys.executable, "-c", REGISTERED, path, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
        env=os.environ | {"HYPOTHESIS_PROFILE": "unshrunk"},
    )  # fmt: skip
    return child.returncode, child.stdout + child.stderr


def test_the_mixer_passes_the_suite(tmp_path):
    status, output = run_suite(tmp_path, MIXER, "test")
    assert status == 0, output[-3000:]
    assert int(re.search(r"(\d+) passed", output)[1]) >= 14


@pytest.mark.parametrize(
    ("line", "mistake", "test"),
    [
        ("xp.where(real, -forgotten[None, None], 0)", "-forgotten[None, None]", "padding"),
        ("back_alpha(dalpha) + back_forgotten", "back_forgotten", "gradients"),
    ],
)
def test_the_suite_refuses_a_mistake(tmp_path, line, mistake, test):
    assert MIXER.count(line) == 1
    status, output = run_suite(tmp_path, MIXER.replace(line, mistake), test)
    assert status == 1 and "FAILED tests/mixers/test_mixer" in output, output[-3000:]


def test_code_on_the_page_is_as_wide_as_code_elsewhere():
    assert max(map(len, (MIXER + OPERATION).splitlines())) <= 100


def test_the_line_and_the_files_are_those_of_the_code():
    """The table has lines of that form, and every file that the page names exists or is its own."""
    table = (ROOT / "minisum/mixers/__init__.py").read_text(encoding="utf-8")
    line = '    "{}": Entry("{}", "{}", can_be_bidirectional=False),\n'
    assert line.format("deltanet", "deltanet", "DeltaNet") in table
    assert line.format("moving_average", "moving_average", "MovingAverage") in PAGE
    for path in re.findall(r"`((?:minisum|tests)/[\w/]+\.py)`", PAGE):
        assert (ROOT / path).is_file() or path == "minisum/mixers/moving_average.py", path


def test_the_operation():
    module = types.ModuleType("page")
    exec(OPERATION, module.__dict__)
    x = grid(np.random.default_rng(0), (3, 4))
    assert gradcheck(module.leaky_relu, x, exact=True)
    y, back = module.leaky_relu(x)
    np.testing.assert_array_equal(y, np.where(x > 0, x, x / 8))
    assert sum(a.nbytes for a in saved_arrays(back)) == x.size
