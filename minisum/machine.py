"""The machine: its device, the BLAS behind NumPy, the C library's malloc, and memory in use."""

import contextlib
import ctypes
import hashlib
import os
import platform
import sys
import tracemalloc
from pathlib import Path

import numpy as np

import minisum
from minisum import backend
from minisum.errors import UserError

UNKNOWN_BLAS = "unknown (pip install threadpoolctl)"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory():
    """Have the C library keep the memory of freed arrays for the next ones. True if it can.

    glibc returns large blocks to the system, which has to clear and map them again: a pass of a
    layer over arrays of 4 MB takes up to 1.6 times as long with that.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return False
    largest = mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)
    return bool(largest and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def backend_in(name, precision):
    """The backend called `name`; the products of this process are in this precision from now on.

    None leaves it as it is. UserError where they cannot be.
    """
    xp = backend.get(name)
    if precision is None:
        return xp
    if xp is not np:
        from minisum.fast.cuda.precision import choose

        choose(precision, xp)
    elif precision != "float32":
        raise UserError(
            f"--precision {precision} needs --backend cupy: a processor multiplies in float32"
        )
    return xp


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


@contextlib.contextmanager
def allocations(xp):
    """Yield counted(), the most bytes alive so far that were allocated in here.

    NumPy reports its arrays to tracemalloc, which slows everything down; CuPy's pool is watched by
    a memory hook. Times measured in here mean nothing.
    """
    if xp is np:
        tracemalloc.start()
        try:
            yield lambda: tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        return

    class Count(xp.cuda.MemoryHook):
        alive = peak = 0

        def malloc_postprocess(self, **event):
            self.alive += event["mem_size"]
            self.peak = max(self.peak, self.alive)

        def free_postprocess(self, **event):
            self.alive -= event["mem_size"]

    with Count() as count:
        yield lambda: count.peak


def use_gpu(number):
    """Work on this GPU from now on, counted round if there are fewer."""
    import cupy

    cupy.cuda.Device(number % cupy.cuda.runtime.getDeviceCount()).use()


def versions(xp):
    """name -> version of what numbers depend on: this library, Python, NumPy and the backend."""
    found = {"minisum": minisum.__version__, "python": platform.python_version()}
    return found | {module.__name__: module.__version__ for module in (np, xp)}


def usable_cpus():
    """Numbers of the CPUs that this process may use."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:
        return set(range(os.cpu_count() or 1))


def cores(cpus):
    """How many cores these CPUs are: two hyperthreads share one core's vector units."""
    siblings = set()
    for cpu in cpus:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(path.read_text() if path.exists() else cpu)
    return len(siblings)


def blas_pools():
    """threadpoolctl's description of each BLAS that NumPy loaded; [] without threadpoolctl."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    return [pool for pool in threadpool_info() if pool["user_api"] == "blas"]


def blas():
    """Name and thread count of the BLAS library behind NumPy, for a log line."""
    named = (
        f"{pool['internal_api']} {pool.get('version') or '?'}, {pool['num_threads']} thread"
        + "s" * (pool["num_threads"] != 1)
        for pool in blas_pools()
    )
    return "; ".join(named) or UNKNOWN_BLAS


def blas_kernels():
    """Name, version and the processor kernel that each BLAS behind NumPy chose, for a log line."""
    named = (
        f"{pool['internal_api']} {pool['version']}, kernel {pool.get('architecture', '?')}"
        for pool in blas_pools()
    )
    return "; ".join(named) or UNKNOWN_BLAS


def arithmetic():
    """What decides the last bits of a sum here, as a word that is another where they are.

    The processor chooses the kernels of BLAS and of NumPy, and their versions the order of sums:
    the bits of a few products and functions tell them apart.
    """
    x = np.random.default_rng(0).normal(size=(96, 257)).astype(np.float32)
    found = [x @ x.T, x[0] @ x[1], x[:, :64].T @ x[:, 64:128], x.sum(0), np.exp(x), np.tanh(x)]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in found)).hexdigest()[:8]
    return f"arithmetic {digest} of NumPy {np.__version__}"


def report(name):
    """Print what backend `name` is made of here, and check a product against sums by hand."""
    xp = backend.get(name)
    print(f"{name} {xp.__version__}")
    print(f"  device        {device_name(xp)}")
    if xp is np:
        print(f"  BLAS          {blas()}")
    else:
        runtime = xp.cuda.runtime
        driver, version = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        print(f"  CUDA          driver {driver}, runtime {version}")
        free, total = runtime.memGetInfo()
        print(f"  memory        {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    by_hand = np.array([[sum(row[k] * b[k, j] for k in range(3)) for j in range(4)] for row in a])
    product = backend.to_numpy(backend.to_device(a, xp) @ backend.to_device(b, xp))
    if not np.array_equal(product, by_hand):
        raise SystemExit("  product       WRONG: (2,3) @ (3,4) differs from the sums done by hand")
    print("  product       (2,3) @ (3,4) is right")


def main():
    """`python -m minisum.backend`"""
    print(f"python {platform.python_version()} on {platform.platform()}")
    report("numpy")
    try:
        report("cupy")
    except UserError as missing:
        print(f"cupy\n  {missing}")
