"""python -m minisum.ops, and the docstrings that it is made of."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minisum import mixers, op_table, ops
from minisum.fast import FORMS

ROOT = Path(__file__).parents[2]
# Refuses every import that is neither NumPy's, minisum's nor the standard library's. Faster forms
# are timed on texts as long as ever, which is what some of them ask for, but of a few numbers.
NUMPY_ALONE = """
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root not in {"numpy", "minisum", *sys.stdlib_module_names}:
            raise ModuleNotFoundError(f"the table needs {name}")

sys.meta_path.insert(0, Refuse())
from minisum import op_table
for sizes in op_table.REAL, op_table.LONG:
    sizes |= {"B": 1, "d": 16, "o": 16, "V": 64, "H": 1, "h": 8}
runpy.run_module("minisum.ops", run_name="__main__")
"""


@pytest.fixture(scope="module")
def printed():
    child = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", NUMPY_ALONE],
        capture_output=True,
        cwd=ROOT,
        timeout=180,
    )
    assert (child.returncode, child.stderr) == (0, b""), child.stderr.decode()
    return child.stdout.decode("utf-8")


def test_every_op_has_an_example():
    assert sorted(op_table.EXAMPLES) == sorted(ops.__all__)


def test_every_op_is_in_the_table_and_right(printed):
    rows = re.findall(r"^(\w+)\(.* (\d+)  (exact|within \S+)$", printed, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(op_table.EXAMPLES)
    tolerance = f"within {op_table.RELATIVE_TOLERANCE:.0e}"
    assert {status for _, _, status in rows} == {"exact", tolerance}
    kept = {name: int(size) for name, size, _ in rows}
    B, n, d, o = 2, 6, 4, 3
    assert kept["relu"] == B * n * d
    assert kept["linear"] == 8 * (B * n * d + o * d)
    assert kept["modulate"] == 8 * (B * n * d + n * d)
    assert kept["running_sum"] == 0


def test_it_fits_a_terminal_and_is_plain_when_piped(printed):
    assert max(map(len, printed.splitlines())) <= 80
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", printed)


def test_the_table_says_what_faster_forms_gain(printed):
    assert re.search(r"^ +faster: host_norms, \d+\.\d times as fast here$", printed, re.MULTILINE)
    told = re.findall(r"faster: (\S+), ", printed)
    assert len(told) == sum(len({*FORMS[n][0], *FORMS[n][1]}) for n in FORMS if n in ops.__all__)


def test_an_operation_has_a_page(capsys, monkeypatch):
    monkeypatch.setattr(op_table, "REAL", op_table.SIZES)
    monkeypatch.setattr(op_table.sys.stdout, "reconfigure", lambda **_: None, raising=False)
    assert op_table.main(["layer_norm"]) == 0
    shown = capsys.readouterr().out
    assert inspect.getdoc(ops.layer_norm).splitlines()[-1].strip() in shown
    assert "minisum/ops/norms.py" in shown and "minisum/fast/cuda/norms.py, on a GPU" in shown
    assert re.search(r"minisum/fast/host_norms.py, \d+\.\d times as fast here", shown)


@pytest.mark.parametrize("name, hint", [("atention", "mean 'attention'?"), ("x", "lists them all")])
def test_a_wrong_name_is_refused(capsys, name, hint):
    with pytest.raises(SystemExit) as stop:
        op_table.main([name])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and repr(name) in error and hint in error


def test_a_closed_pipe_is_no_error():
    code = f"{sys.executable} -m minisum.ops | head -1"
    child = subprocess.run(code, shell=True, capture_output=True, cwd=ROOT, timeout=180)
    assert child.stdout.startswith(b"saved") and child.stderr == b""


def test_a_wrong_gradient_is_shown_and_is_the_exit_status(monkeypatch, capsys):
    def wrong(x):
        """y = x.

        dx = dy.

        Saved: nothing.
        """
        return x, lambda dy: 2 * dy

    monkeypatch.setattr(ops, "relu", wrong)
    two = {name: op_table.EXAMPLES[name] for name in ("relu", "linear")}
    monkeypatch.setattr(op_table, "EXAMPLES", two)
    monkeypatch.setattr(op_table.sys.stdout, "reconfigure", lambda **_: None, raising=False)
    assert op_table.main([]) == 1
    output = capsys.readouterr().out
    assert output.count("WRONG") == output.count("  exact\n") == 1
    assert "gradcheck of relu" in output


@pytest.mark.parametrize("name", ops.__all__)
def test_a_docstring_gives_the_formula_every_gradient_and_what_is_saved(name):
    """First line y = ...; somewhere d<argument> for each argument with a gradient; last, Saved."""
    doc = getattr(ops, name).__doc__
    paragraphs = inspect.cleandoc(doc).split("\n\n")
    assert "=" in op_table.formula(getattr(ops, name))
    assert paragraphs[-1].startswith("Saved: ") and doc.count("Saved:") == 1
    _, wrap, arguments = op_table.EXAMPLES[name](op_table.Draw(0))
    names = inspect.signature(wrap(getattr(ops, name))).parameters
    for argument, array in zip(names, arguments, strict=False):
        if array.dtype.kind == "f":
            assert re.search(rf"\bd{argument}(\b|_|\[)", doc), f"nothing is said of d{argument}"


@pytest.mark.parametrize("name", mixers.TABLE)
def test_a_mixer_names_its_source_its_cost_and_its_state(name):
    mixer = mixers.TABLE[name].load()
    module = " ".join(sys.modules[mixer.__module__].__doc__.split())
    assert re.search(r"\b(19|20)\d\d\b", module), "no year of a source"
    assert re.search(r"Time O\(", module), "no time"
    assert re.search(r"\b[Ss]tate\b", module), "no state size"
    assert "=" in mixer.__doc__.splitlines()[0], "no formula"
    assert re.search(r"\bd\w+ (=|gets|\+=)|Backward|backward", mixer.__doc__), "no backward pass"


SOURCES = sorted(ROOT.glob("minisum/**/*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_formulas_write_products_and_transposes_as_the_code_does(path):
    """x @ W.T in docstrings as in code: so that a product is never taken for an entrywise one."""
    assert "ᵀ" not in path.read_text(encoding="utf-8")


def test_an_operation_is_never_its_file():
    """Whichever is imported first: a submodule takes its own name in the package."""
    code = """
from importlib import import_module
from minisum import ops
for file in ops.FILES:
    import_module(f"minisum.ops.{file}")
print([name for name in ops.FILE_OF if not callable(getattr(ops, name))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr
