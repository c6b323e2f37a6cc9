"""The built wheel, used outside the clone: it loads, predicts, explains, fits, checks gradients."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools", "77")
pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import numpy
import minisum
assert {folder!r} in minisum.__file__, minisum.__file__
run = minisum.load({run!r})
print(run.predict(["meow meow"]), run.explain("woof").label, run.predict_proba(["moo"]).shape)
clf = minisum.TextClassifier(width=8, epochs=2).fit(["a good one", "a bad one"] * 4, [1, 0] * 4)
clf.save("mine")
print(clf.predict(["good"]).shape, minisum.load("mine").classes)
x = minisum.gradcheck.grid(numpy.random.default_rng(0), (3, 4))
print(bool(minisum.gradcheck(minisum.ops.relu, x, exact=True)))
print(sorted(minisum.mixers.TABLE)[0], hasattr(minisum.models, "__path__"))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder of a wheel that was built from a copy of the sources, without any network."""
    folder = tmp_path_factory.mktemp("wheel")
    wanted = ["minisum", "train", "data", "pyproject.toml", "README.md", "LICENSE"]
    command = ["git", "ls-files", "-co", "--exclude-standard", *wanted]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("not a clone: git does not know its files")
    for name in files.stdout.split():
        copy = folder / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
    child = subprocess.run(
        [sys.executable, "-c", build], cwd=folder / "source", capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    wheel = folder / child.stdout.split()[-1]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def call(program, folder, path, arguments=()):
    command = [sys.executable, "-W", "error", *arguments, *(["-c", program] if program else [])]
    child = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120,
        env={"PYTHONPATH": str(path), "OPENBLAS_NUM_THREADS": "1", "PATH": ""},
    )  # fmt: skip
    return child.returncode, child.stdout, child.stderr


def test_the_wheel_works_without_the_clone(unpacked, straight, tmp_path):
    program = PROGRAM.format(folder=str(unpacked), run=str(straight))
    status, output, errors = call(program, tmp_path, unpacked)
    assert status == 0, errors
    assert output.splitlines() == [
        "['cat'] dog (1, 3)", "(1,) [0, 1]", "True", "aft_simple True"
    ]  # fmt: skip


def test_what_is_in_it(unpacked):
    top = {path.name for path in unpacked.iterdir()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"minisum"}
    assert {"py.typed", "__init__.pyi"} <= {path.name for path in (unpacked / "minisum").iterdir()}
    assert list((unpacked / "minisum/fast/cuda").glob("*.cu"))


def test_training_outside_the_clone_is_told_in_a_sentence(unpacked, tmp_path):
    status, output, errors = call(None, tmp_path, unpacked, ["-m", "minisum", "train.classifier"])
    assert (status, output) == (2, "")
    assert errors.count("\n") == 1 and "python -m train.classifier runs inside a clone" in errors
    status, output, errors = call(None, tmp_path, unpacked, ["-m", "minisum", "--help"])
    assert status == 0 and "minisum.load" in output and not errors


def test_importing_needs_numpy_alone(unpacked, tmp_path):
    program = "import sys, minisum; print({'tokenizers', 'safetensors'} & set(sys.modules))"
    assert call(program, tmp_path, unpacked)[1] == "set()\n"
