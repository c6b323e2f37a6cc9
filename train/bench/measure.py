"""How the benchmark measures: interleaved repetitions, peak memory, bandwidth, the machine."""

import os
import statistics
import time

import numpy as np

from minisum import machine

WARM_UP, SLOW = 3, 1.0  # times, but once is enough for what takes longer than these seconds
MOST_ROUNDS, LEAST_ROUNDS = 15, 3
# A repetition lasts at least about this long, in as many steps as that takes: a training loop goes
# from step to step, and waits for no device and wakes no threads in between.
HOST_SECONDS, DEVICE_SECONDS = 0.2, 0.02
# A BLAS's threads keep spinning for a moment after their work; the next side must not pay for that.
PAUSE = 0.01


def interleaved(runs, xp, budget):
    """Seconds of each of `runs`, name -> function, all in turn, several times.

    Warm-up is excluded. Each is synchronised before and after. budget: seconds for all rounds
    together, but at least LEAST_ROUNDS rounds are made.
    """
    steps, repetition = {}, HOST_SECONDS if xp is np else DEVICE_SECONDS
    for name, run in runs.items():
        for _ in range(WARM_UP):
            seconds = timed(run, xp)
            if seconds > SLOW:
                break
        steps[name] = max(1, min(100, int(repetition / seconds)))
    times = {name: [] for name in runs}
    end = time.perf_counter() + budget
    for round_ in range(MOST_ROUNDS):
        if round_ >= LEAST_ROUNDS and time.perf_counter() > end:
            break
        for name, run in runs.items():
            time.sleep(PAUSE)
            times[name].append(timed(run, xp, steps[name]))
    return times


def timed(run, xp, steps=1):
    """Seconds of a step, from one synchronisation to the next."""
    synchronize(xp)
    start = time.perf_counter()
    for _ in range(steps):
        run()
    synchronize(xp)
    return (time.perf_counter() - start) / steps


def synchronize(xp):
    """Wait until the device has finished, whichever library gave it the work."""
    if xp is not np:
        xp.cuda.Device().synchronize()


def summary(seconds):
    return {"median": statistics.median(seconds), "min": min(seconds), "rounds": len(seconds)}


def peak_memory(work, xp):
    """The most bytes alive that work() allocates, by NumPy's or CuPy's account."""
    with machine.allocations(xp) as peak:
        work()
        synchronize(xp)
        return peak()


def bandwidth(xp, workers):
    """Bytes a second of a plain copy, reads and writes counted: the best of several."""
    size = 2**24 if xp is np else 2**28
    pairs = [(xp.ones(size, "f4"), xp.zeros(size, "f4")) for _ in range(workers.count)]

    def copy(worker):
        source, target = pairs[worker]
        target[...] = source

    best = min(timed(lambda: workers.each(copy), xp) for _ in range(7))
    return 2 * 4 * size * workers.count / best


def describe_machine(xp, threads):
    """What the numbers depend on, name -> text."""
    found = {"device": machine.device_name(xp), "threads": str(threads)} | machine.versions(xp)
    if xp is not np:
        found["CUDA"] = str(xp.cuda.runtime.runtimeGetVersion())
    found["BLAS of numpy"] = machine.blas_kernels()
    if "OPENBLAS_CORETYPE" in os.environ:
        found["OPENBLAS_CORETYPE"] = f"{os.environ['OPENBLAS_CORETYPE']} (set by hand)"
    if hasattr(os, "getloadavg"):
        found["load"] = "{:.1f}, {:.1f}, {:.1f} (1, 5, 15 minutes)".format(*os.getloadavg())
    return found
