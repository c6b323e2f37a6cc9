"""Where arrays are: with NumPy on the CPU or with CuPy on an NVIDIA GPU.

Operations take the array module from their arrays (`array_module`), so both backends can run side
by side in one process. A backend is *chosen* only at the edge, by `get`, which never falls back: if
there is no working GPU, its error says what is missing.

The machine's memory and BLAS are in `minisum.machine`; `python -m minisum.backend` describes it.
"""

import ctypes
import os
import sys

import numpy as np

from minisum.errors import UserError

NAMES = ("numpy", "cupy")
# Of the matrix products on a GPU, see minisum.fast.cuda.precision.
PRECISIONS = ("float32", "tf32", "bf16")


def array_module(x):
    """The module whose functions take `x`: cupy for a CuPy array, numpy for all else.

    Looks at the type's name, so that CuPy is never imported to find out.
    """
    if type(x).__module__.partition(".")[0] == "cupy":
        return sys.modules["cupy"]
    return np


def get(name):
    """The array module called `name`, after a check that it works.

    Raises UserError with the reason and the package to install when CuPy cannot run a kernel here.
    """
    if name == "numpy":
        return np
    if name == "cupy":
        return _working_cupy()
    raise UserError(f"unknown backend {name!r}: choose one of {', '.join(NAMES)}")


def _working_cupy():
    driver = _cuda_driver_version()
    if driver is None:
        raise UserError(
            "--backend cupy needs an NVIDIA GPU with its driver, and none was found on this "
            "machine; where there is one, install cupy-cuda12x[ctk] for a CUDA 12 driver or "
            "cupy-cuda13x[ctk] for CUDA 13"
        )
    package = "cupy-cuda13x[ctk]" if driver >= 13000 else "cupy-cuda12x[ctk]"
    version = f"{driver // 1000}.{driver % 1000 // 10}"
    advice = f"for this driver (CUDA {version}) install: pip install '{package}'"
    try:
        import cupy
    except Exception as reason:  # a broken CuPy raises anything from ImportError to RuntimeError
        what = f"CuPy cannot be imported ({_one_line(reason)})"
        raise UserError(f"--backend cupy: {what}; {advice}") from reason
    try:
        if float(cupy.arange(4, dtype=cupy.float32).sum()) != 6.0:
            raise RuntimeError("a sum of four numbers came out wrong")
    except Exception as reason:
        what = f"the GPU cannot run a kernel ({_one_line(reason)})"
        raise UserError(f"--backend cupy: {what}; {advice}") from reason
    return cupy


def _cuda_driver_version():
    """CUDA version of the installed driver, such as 12040 for 12.4, or None without a device."""
    library = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
        version, devices = ctypes.c_int(), ctypes.c_int()
        ok = cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(devices)) == 0
        if ok and devices.value > 0 and cuda.cuDriverGetVersion(ctypes.byref(version)) == 0:
            return version.value
    except (OSError, AttributeError):
        pass
    return None


def _one_line(error):
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


_constants = {}


def constant(array, xp, dtype=None):
    """A host array that never changes, on `xp`; copied to a GPU once, not in every step."""
    array = np.asarray(array, dtype)
    if xp is np:
        return array
    key = (xp.__name__, array.dtype.char, array.shape, array.tobytes())
    if key not in _constants:
        _constants[key] = xp.asarray(array)
    return _constants[key]


def to_device(x, xp):
    """`x` (a host array, or a dict of them) as arrays of `xp`; those of a dict are one copy."""
    if not isinstance(x, dict):
        return xp.asarray(x)
    arrays = {name: np.asarray(a, order="C") for name, a in x.items()}
    if xp is np:
        return arrays
    parts, starts, end = [np.zeros(0, np.uint8)], {}, 0
    for name, a in arrays.items():
        padding = np.zeros(-a.nbytes % 16, np.uint8)  # kernels read 16 bytes at a time
        parts += [a.reshape(-1).view(np.uint8), padding]
        starts[name], end = end, end + a.nbytes + len(padding)
    there = xp.asarray(np.concatenate(parts))
    return {
        name: there[starts[name] : starts[name] + a.nbytes].view(a.dtype).reshape(a.shape)
        for name, a in arrays.items()
    }


def to_numpy(x):
    """`x` as a NumPy array, copied from the device if it lives on one."""
    return x.get() if array_module(x) is not np else np.asarray(x)


def synchronize(xp):
    """Wait until the device has finished; on NumPy there is nothing to wait for."""
    if xp is not np:
        xp.cuda.get_current_stream().synchronize()


def add_into(view, more):
    """view += more. After `array[some] += more` CuPy copies those numbers onto themselves."""
    view += more


if __name__ == "__main__":
    from minisum.machine import main

    main()
