"""Where arrays live: NumPy on the processor or CuPy on an NVIDIA GPU.

Operations ask an array which module it came from (`array_module`) and so carry no state: both
backends can run side by side in one process. A backend is *chosen* only at the edge, by `get`,
which never falls back: asked for a GPU that is not there, it says what is missing.

`python -m minisum.backend` prints versions, device and BLAS threads, and checks a small product.
"""

import ctypes
import os
import platform
import sys

import numpy as np

from minisum.errors import UserError

NAMES = ("numpy", "cupy")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


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
    import ctypes

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


def keep_freed_memory():
    """Have the C library keep the memory of freed arrays for the next ones, where it can be told.

    glibc hands large pieces back to the system, which has to clear and to map them again: a pass
    of a layer over arrays of 4 MB takes up to 1.6 times as long with that. True if it was told.
    """
    try:
        tell = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return False
    largest = tell(M_MMAP_THRESHOLD, 2**30) or tell(M_MMAP_THRESHOLD, 2**25)
    return bool(largest and tell(M_TRIM_THRESHOLD, 2**31 - 1))


def device_name(xp):
    """What the backend runs on, for a log line."""
    if xp is not np:
        device = xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)
        return device["name"].decode()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next(line for line in lines if line.startswith("model name"))
        return model.partition(":")[2].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_memory(xp):
    """Bytes: the most this process ever had resident, or what CuPy's pool took from the device."""
    if xp is not np:
        return int(xp.get_default_memory_pool().total_bytes())
    try:
        import resource
    except ImportError:  # Windows has no such counter
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def blas_libraries():
    """(name, version, threads) of each BLAS that NumPy loaded, as far as threadpoolctl can tell."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    return [
        (pool["internal_api"], pool.get("version") or "?", pool["num_threads"])
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]


def _report(name):
    """Print what `name` is made of here, and check a product against sums done by hand."""
    xp = get(name)
    print(f"{name} {xp.__version__}")
    print(f"  device        {device_name(xp)}")
    if xp is np:
        libraries = blas_libraries()
        for api, version, threads in libraries:
            print(f"  BLAS          {api} {version}, {threads} thread{'s' * (threads != 1)}")
        if not libraries:
            print("  BLAS          threads unknown (pip install threadpoolctl)")
    else:
        runtime = xp.cuda.runtime
        driver, version = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        print(f"  CUDA          driver {driver}, runtime {version}")
        free, total = runtime.memGetInfo()
        print(f"  memory        {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    by_hand = np.array([[sum(row[k] * b[k, j] for k in range(3)) for j in range(4)] for row in a])
    product = to_numpy(to_device(a, xp) @ to_device(b, xp))
    if not np.array_equal(product, by_hand):
        raise SystemExit("  product       WRONG: (2,3) @ (3,4) differs from the sums done by hand")
    print("  product       (2,3) @ (3,4) is right")


def main():
    print(f"python {platform.python_version()} on {platform.platform()}")
    _report("numpy")
    try:
        _report("cupy")
    except UserError as missing:
        print(f"cupy\n  {missing}")


if __name__ == "__main__":
    main()
