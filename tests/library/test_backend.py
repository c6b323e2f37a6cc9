"""Where arrays live: choosing a backend, refusing one that is not there, and not mixing the two."""

import os
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import fake_cupy
import numpy as np
import op_cases
import pytest
from agreement import arrays_only, assert_close, each, parts
from conftest import XP

from minisum import backend, machine
from minisum.errors import UserError
from minisum.fast.cuda import compiling
from minisum.gradcheck import gradcheck
from minisum.models import classifier
from minisum.models.base import Model
from minisum.optim import Adam
from minisum.params import Params
from minisum.shards import Shards
from minisum.strategies import Case

ROOT = Path(__file__).resolve().parents[2]
RUNS_ON = compiling.runs_on
HAS_GPU = backend._cuda_driver_version() is not None


def child(code, *path, **environment):
    """Run `code` in a fresh interpreter, with `path` in front of its module search path."""
    paths = os.pathsep.join(map(str, (*path, ROOT)))
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, cwd=ROOT, timeout=120,
        env=os.environ | {"PYTHONPATH": paths} | environment,
    )  # fmt: skip


# Choosing


def test_importing_the_core_needs_numpy_alone():
    """Nothing outside the standard library and NumPy, and no CuPy even where it is installed."""
    code = """
import sys, numpy
before = set(sys.modules)
import minisum, minisum.ops, minisum.models.classifier, minisum.mixers, minisum.shards
import minisum.optim, minisum.params, minisum.gradcheck, minisum.backend, minisum.init
new = {name.partition('.')[0] for name in set(sys.modules) - before}
print(sorted(new - {'minisum', 'numpy'} - sys.stdlib_module_names))
print('hypothesis' in sys.modules or 'cupy' in sys.modules)
"""
    done = child(code)
    assert (done.returncode, done.stdout) == (0, "[]\nFalse\n"), done.stderr


def test_array_module_imports_nothing():
    code = """
import sys, numpy as np
from minisum.backend import array_module
class Impostor: pass
for x in (np.ones(3), np.float32(1), 2.0, [1], None, Impostor()):
    assert array_module(x) is np
print('cupy' in sys.modules)
"""
    done = child(code)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_numpy_and_unknown_names():
    assert backend.get("numpy") is np
    with pytest.raises(UserError, match="unknown backend 'torch': choose one of numpy, cupy"):
        backend.get("torch")


def assert_one_sentence(error, *words):
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    for word in ("--backend cupy", *words):
        assert word in text


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU here")
def test_without_a_gpu_the_reason_and_the_packages_are_named():
    with pytest.raises(UserError) as error:
        backend.get("cupy")
    assert_one_sentence(error, "NVIDIA GPU", "cupy-cuda12x[ctk]", "cupy-cuda13x[ctk]")


@pytest.mark.parametrize(
    "driver, package", [(12040, "cupy-cuda12x[ctk]"), (13000, "cupy-cuda13x[ctk]")]
)
def test_the_package_follows_the_driver(driver, package, monkeypatch):
    monkeypatch.setattr(backend, "_cuda_driver_version", lambda: driver)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(UserError) as error:
        backend.get("cupy")
    assert_one_sentence(error, package, "cannot be imported", f"CUDA {driver // 1000}.")


BROKEN = {
    "raises on import": ("raise RuntimeError('no libcudart.so.12\\nmore')", "no libcudart.so.12"),
    "is empty": ("", "cannot run a kernel"),
    "adds up wrongly": (
        "import numpy\nfloat32 = 'f4'\ndef arange(*a, **k): return numpy.zeros(4)",
        "came out wrong"),
}  # fmt: skip


@pytest.mark.parametrize("driver", [None, 12080])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_cupy_is_a_users_error(name, driver, tmp_path):
    """In a fresh process, with a fake `cupy` first on the path; importing minisum stays fine."""
    source, reason = BROKEN[name]
    (tmp_path / "cupy.py").write_text(source, encoding="utf-8")
    code = f"""
import minisum.ops
from minisum import backend
from minisum.fast.cuda import losses
from minisum.errors import UserError
backend._cuda_driver_version = lambda: {driver}
try:
    backend.get('cupy')
except UserError as error:
    print(error)
"""
    done = child(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and "cupy-cuda12x[ctk]" in done.stdout
    assert (reason if driver else "none was found") in done.stdout


def test_the_self_test_runs():
    done = subprocess.run(
        [sys.executable, "-m", "minisum.backend"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert f"numpy {np.__version__}" in done.stdout and "(2,3) @ (3,4) is right" in done.stdout
    assert "cupy" in done.stdout and "Traceback" not in done.stderr


# Moving, measuring


def test_moving_to_and_fro():
    x = np.arange(6.0).reshape(2, 3)
    moved = backend.to_device({"x": x, "ids": np.arange(3)}, XP)
    assert backend.array_module(moved["x"]) is XP
    np.testing.assert_array_equal(backend.to_numpy(moved["x"]), x)
    assert backend.to_numpy(moved["ids"]).dtype == np.arange(3).dtype
    backend.synchronize(XP)
    assert machine.device_name(XP)
    assert machine.peak_memory(XP) > 0 or XP is not np


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch):
    assert machine.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    told = []

    class Library:
        def __init__(self, name):
            pass

        def mallopt(self, option, value):
            told.append((option, value))
            return int(value <= 2**25 or option == machine.M_TRIM_THRESHOLD)

    monkeypatch.setattr(machine.ctypes, "CDLL", Library)
    assert machine.keep_freed_memory()  # an old one that refuses more than 32 MB
    assert told == [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1)]
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: object())
    assert not machine.keep_freed_memory()


# The stand-in for CuPy


@pytest.fixture
def device(monkeypatch):
    """The stand-in as "cupy". It cannot compile kernels, so the textbook forms run on it."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module)
    monkeypatch.setattr(compiling, "runs_on", lambda *arrays: False)
    return fake_cupy.module


def test_the_stand_in_is_strict(device):
    x = device.asarray(np.ones(3))
    assert backend.array_module(x) is device
    assert type(x.sum()).__module__ == "cupy" and float(x.sum()) == 3
    for leak in (
        lambda: x + np.ones(3),
        lambda: np.ones(3) * x,
        lambda: x @ np.ones(3),
        lambda: np.asarray(x),
        lambda: np.sum(x),
        lambda: device.where(np.ones(3) > 0, x, 0),
        lambda: x[np.arange(2)],
        lambda: x.__setitem__(0, np.ones(())),
        lambda: device.add.at(x, device.asarray([0]), np.ones(1)),
    ):
        with pytest.raises(TypeError):
            leak()


def test_a_kernel_reads_one_type_without_gaps(device):
    """It would take 8 bytes of a float64 for two float32: other types take the textbook forms."""
    single, double = device.asarray(np.ones((4, 4), "f4")), device.asarray(np.ones(4))
    assert RUNS_ON(single, single, None) and RUNS_ON(double)
    assert not RUNS_ON(single, None, double)
    for arrays in ((single, double), (single, np.ones(4, "f4")), (single.astype("f2"),)):
        assert not RUNS_ON(*arrays)
    nowhere = ("file.kernel", (0,), (1,), single)
    for array in (double, single.T[1:], single.astype("i8")):
        with pytest.raises(ValueError, match="float32 in row-major order"):
            compiling.launch(*nowhere, array, 1, 2.0)
    compiling.launch(*nowhere, None, single.astype("i4"), single > 0, 1, 2.0)


@pytest.mark.skipif(XP is not np, reason="the stand-in is for machines without a GPU")
def test_a_packed_batch_stays_whole(device):
    """The mask of a packed batch is of another length than its texts."""

    class Echo(Model):
        def predict(self, params, batch):
            return batch["mask"]

    params = Params.from_arrays({"w": np.ones(1)}, device)
    batch = {"ids": device.asarray(np.ones((4, 6))), "mask": device.asarray(np.arange(100))}
    assert len(Shards(Echo(), record=False).predict(params, batch)) == 100


def drawn_like(rng, part):
    return rng.normal(size=part.shape)


CORE = op_cases.EXACT | op_cases.SMOOTH


@pytest.mark.skipif(XP is not np, reason="the stand-in is for machines without a GPU")
@pytest.mark.parametrize("name", ["linear", "embed", "cross_entropy", "running_softmax_pool"])
def test_a_gradient_can_be_checked_on_the_device(name, device):
    op, *arrays = CORE[name](Case({"B": 2, "n": 3, "d": 2, "o": 3, "V": 4}, 0, device))
    assert gradcheck(op, *arrays)


@pytest.mark.skipif(XP is not np, reason="the stand-in is for machines without a GPU")
@pytest.mark.parametrize("name", CORE)
def test_no_op_mixes_host_and_device(name, device):
    for seed in range(3):
        sizes = {letter: ends[1] for letter, ends in op_cases.SIZES.items()}
        op, *arrays = CORE[name](Case(dict(sizes), seed, device))
        reference, *host_arrays = CORE[name](Case(dict(sizes), seed, np))
        y, back = op(*arrays)
        wanted, back_wanted = reference(*host_arrays)
        for found, part in zip(parts(y), parts(wanted), strict=True):
            assert_close(found, part)
        dy = each(partial(drawn_like, np.random.default_rng(seed)), wanted)
        gradients = arrays_only(back(each(device.asarray, dy)))
        for found, gradient in zip(gradients, arrays_only(back_wanted(dy)), strict=True):
            assert type(found).__module__ == "cupy"
            assert_close(found, gradient)


@pytest.mark.skipif(XP is not np, reason="the stand-in is for machines without a GPU")
@pytest.mark.parametrize("mixer", classifier.MODELS)
def test_a_training_step_leaks_no_host_array(mixer, device):
    """Loss, gradients, clipping, AdamW and predictions; and the numbers are those of NumPy."""
    rng = np.random.default_rng(0)
    model = classifier.build(mixer, 9, 4, 3, 6, dropout=0.5)
    arrays = model.init(rng)
    batch = {
        "ids": rng.integers(0, 9, (4, 6)).astype(np.int32),
        "mask": np.arange(6) < np.array([[6], [2], [0], [3]]),
        "targets": rng.integers(0, 3, 4).astype(np.int32),
    }
    batch |= model.noise(rng, batch)
    results = []
    for xp in (np, device):
        params = Params.from_arrays(arrays, xp, "float64")
        grads = params.zeros_like()
        adam = Adam(params, weight_decay=0.1, clip_value=0.5, clip_norm=0.1)
        runner = Shards(model, rows=3, record=False)
        on_device = backend.to_device(batch, xp)
        for _ in range(3):
            loss = runner.loss_and_grads(params, grads, on_device)
            adam.step(grads, 0.1)
        logits = runner.predict(params, on_device)
        assert backend.array_module(logits) is xp and backend.array_module(grads.vector) is xp
        results.append([float(loss), backend.to_numpy(logits), backend.to_numpy(params.vector)])
    # Of an attention's key bias only rounding comes back, and Adam divides that by eps = 1e-8.
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
