"""Where arrays live: NumPy on the processor or CuPy on an NVIDIA GPU.

Operations ask an array which module it came from (`array_module`) and so carry no state: both
backends can run side by side in one process. A backend is *chosen* only at the edge, by `get`,
which never falls back: asked for a GPU that is not there, it says what is missing.

The machine's memory and BLAS are in `minisum.machine`; `python -m minisum.backend` describes it.
"""

import ctypes
import os
import sys

import numpy as np

from minisum.errors import UserError

NAMES = ("numpy", "cupy")

# Rows that `add_rows` handles together: few enough that their places stay in a core's cache.
ROWS_AT_A_TIME = 256
_PAIRS = {"f": np.complex64, "d": np.complex128}


def array_module(x):
    """The module whose functions take `x`: cupy for a CuPy array, numpy for all else.

    Looks at the type's name, so that CuPy is never imported to find out.
    """
    if type(x).__module__.partition(".")[0] == "cupy":
        return sys.modules["cupy"]
    return np


def get(name):
    """The array module called `name`, proved to work.

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
    """A host array that never changes, on `xp`; a GPU is sent it once, not in every step."""
    array = np.asarray(array, dtype)
    if xp is np:
        return array
    key = (xp.__name__, array.dtype.char, array.shape, array.tobytes())
    if key not in _constants:
        _constants[key] = xp.asarray(array)
    return _constants[key]


def to_device(x, xp):
    """`x` (a host array, or a dict of them) as arrays of `xp`."""
    if isinstance(x, dict):
        return {name: to_device(value, xp) for name, value in x.items()}
    return xp.asarray(x)


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


def add_rows(table, ids, rows):
    """table[ids[i]] += rows[i] for every i, repeated ids included, one after the other. In place.

    table (V, d); ids any shape S, in [0, V); rows (*S, d).

    `table[ids] += rows` would keep one of each repeated id. `add.at` keeps all, and is quick where
    it adds single numbers at places of a flat array; two real numbers side by side are a complex
    one, and so half as many places do. On a GPU the sum is made of atomic additions, whose order
    varies from run to run.
    """
    xp, (_, width) = array_module(table), table.shape
    ids, rows = ids.reshape(-1), rows.reshape(-1, width)
    if xp is not np or not table.flags.c_contiguous:
        xp.add.at(table, ids, rows)
        return
    unit = table.dtype if width % 2 else _PAIRS.get(table.dtype.char, table.dtype)
    numbers = table.reshape(-1).view(unit)
    places = np.arange(width * table.itemsize // numbers.itemsize)
    for start in range(0, len(ids), ROWS_AT_A_TIME):
        some = slice(start, start + ROWS_AT_A_TIME)
        first = ids[some, None].astype(np.intp) * len(places)
        added = np.ascontiguousarray(rows[some], table.dtype).reshape(-1)
        np.add.at(numbers, (first + places).reshape(-1), added.view(unit))


def accumulator(dtype):
    """The type to add numbers of `dtype` in: float16 sums in float32, all others in themselves.

    A float16 sum of 8,192 values of order one is wrong by 11 %; in float32 by 2e-6.
    """
    return np.float32 if np.dtype(dtype) == np.float16 else np.dtype(dtype)


if __name__ == "__main__":
    from minisum.machine import main

    main()
