"""One workload on both sides: measured, compared, and written as lines of the benchmark's table."""

import dataclasses
from functools import partial

import numpy as np

from minisum import machine
from minisum.shards import Workers
from train.bench.measure import bandwidth, describe_machine, interleaved, peak_memory, summary
from train.bench.sides import Ours, two_steps

VECTORS = 7  # that a step must read or write once: g, and θ, m, v both ways
# Largest relative difference between the outputs of the two sides, before and after a step.
AGREEMENT = {"float32": 2e-3, "tf32": 5e-2, "bf16": 0.2}


@dataclasses.dataclass
class Line:
    """One result. ratio is a speed-up (target: at least) unless `at_most` is set."""

    name: str
    what: str
    ours: str
    theirs: str
    ratio: float = None
    target: float = None
    at_most: bool = False
    unit: str = "x"
    notes: list = dataclasses.field(default_factory=list)
    details: dict = dataclasses.field(default_factory=dict)

    @property
    def met(self):
        if self.target is None or self.ratio is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def cells(self):
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}{self.unit}"
        sign = "<=" if self.at_most else ">="
        target = "" if self.target is None else f"{sign} {self.target:g}{self.unit}"
        met = {None: "", True: "yes", False: "NO"}[self.met]
        return [self.what, self.ours, self.theirs, ratio, target, met]


class Bench:
    """The backend, PyTorch if it is installed, and how both are timed."""

    def __init__(self, name, threads, precision, modes, seconds):
        self.xp = machine.backend_in(name, precision)
        self.on_device = self.xp is not np
        self.threads, self.precision, self.seconds = threads, precision, seconds
        self.torch, self.why_not = load_torch(threads, precision)
        self.device = "cuda" if self.on_device else "cpu"
        self.modes = modes or ["eager", "compiled"] + ["reduce-overhead"] * self.on_device
        workers = Workers(None if self.on_device else threads)
        self.bandwidth = bandwidth(self.xp, workers)

    def conditions(self):
        torch = self.torch.description(self.device) if self.torch else self.why_not
        return describe_machine(self.xp, self.threads) | {
            "PyTorch": torch,
            "precision": self.precision,
            "copy": f"{self.bandwidth / 1e9:.1f} GB/s, reads and writes",
        }

    def target(self, on_host, **on_device):
        """The goal of a line: on a processor, or on a GPU in this precision, if there is one."""
        return on_device.get(self.precision) if self.on_device else on_host

    def makers(self, workload, modes=()):
        """name -> a function that makes the side: ours, and PyTorch in these modes."""
        makers = {"ours": partial(Ours, workload, self.xp, self.threads)}
        if self.torch:
            theirs = partial(self.torch.Theirs, workload, self.device, self.precision)
            makers |= {mode: partial(theirs, mode) for mode in modes}
        return makers

    def times(self, runs):
        """name -> summary of the seconds of each of `runs`, name -> function."""
        times = interleaved(runs, self.xp, self.seconds)
        return {name: summary(seconds) for name, seconds in times.items()}

    def compare(self, workload, modes=None, with_inference=False, beside=None):
        """Everything that is measured about one workload: a dict, ready for JSON.

        modes: of PyTorch, by default all; beside: another workload, timed in turn, ours alone.
        """
        makers = self.makers(workload, self.modes if modes is None else modes)
        sides = {name: make() for name, make in makers.items()}
        found = {"workload": dataclasses.asdict(workload), "products_flop": workload.flops()}
        if "eager" in sides:
            found["outputs_differ"] = disagreement(sides)
        runs = {name: side.step for name, side in sides.items()}
        for name in [name for name in ("ours", "eager") if name in sides]:
            runs[f"{name} products"] = sides[name].products()
            if with_inference:
                runs[f"{name} inference"] = sides[name].infer
        if beside:
            runs["beside"] = self.makers(beside)["ours"]().step
        found["seconds"] = seconds = self.times(runs)
        found["tokens_per_second"] = {
            name: workload.batch * workload.tokens / time["median"]
            for name, time in seconds.items()
            if "products" not in name and name != "beside"
        }
        traffic = VECTORS * 4 * sides["ours"].params.count
        found["limit_seconds"] = seconds["ours products"]["median"] + traffic / self.bandwidth
        del sides, runs
        found["peak_bytes"] = {"ours": peak_memory(partial(two_steps, makers["ours"]), self.xp)}
        if "eager" in makers:
            work = partial(two_steps, makers["eager"])
            found["peak_bytes"]["eager"] = self.torch.peak_memory(work, self.device)
        return found

    def theirs(self, found):
        """mode -> summary of the seconds of each of PyTorch's modes that ran."""
        return {mode: found["seconds"][mode] for mode in self.modes if mode in found["seconds"]}

    def line(self, name, what, ours, theirs, found, target):
        """The line of `ours` against the fastest of `theirs`, name -> summary of seconds."""
        line = Line(name, what, milliseconds(ours), self.why_not or "", details=found)
        if theirs:
            best = min(theirs, key=lambda name: theirs[name]["median"])
            line.theirs = f"{best} {milliseconds(theirs[best])}"
            line.ratio, line.target = theirs[best]["median"] / ours["median"], target
        return line

    def lines(self, name, what, found, target=None):
        """The line of the time of a step against PyTorch's fastest mode, and of its memory."""
        ours, theirs = found["seconds"]["ours"], self.theirs(found)
        line = self.line(name, what, ours, theirs, found, target)
        if theirs:
            least = min(their["min"] for their in theirs.values()) / ours["min"]
            line.notes.append(f"PyTorch: {listed(theirs)}; ratio of the minima {least:.2f}")
        line.notes.append(self.products_note(found))
        differ = found.get("outputs_differ")
        if differ is not None:
            note = f"outputs agree to {differ:.0e} of their size"
            if not differ <= AGREEMENT[self.precision]:
                note = f"THE OUTPUTS DIFFER by {differ:.0e} of their size: no comparison"
                line.target = line.ratio = None
            line.notes.append(note)
        return [line, *self.memory_lines(name, what, found)]

    def products_note(self, found):
        seconds = found["seconds"]
        parts = []
        for who, key in (("ours", "ours products"), ("PyTorch", "eager products")):
            if key in seconds:
                rate = found["products_flop"] / seconds[key]["median"] / 1e9
                parts.append(f"{who} {milliseconds(seconds[key])} ({rate:,.0f} GFLOP/s)")
        limit, speed = found["limit_seconds"], found["tokens_per_second"]["ours"]
        return (
            f"products alone: {', '.join(parts)}; our step runs at "
            f"{limit / seconds['ours']['median']:.0%} of its limit ({1e3 * limit:.2f} ms), "
            f"{speed:,.0f} tokens/s"
        )

    def memory_lines(self, name, what, found):
        peaks = found.get("peak_bytes", {})
        if "eager" not in peaks:
            return []
        ours, theirs = (megabytes(peaks[side]) for side in ("ours", "eager"))
        named = f"{name} memory", f"  its peak memory ({name})", ours, f"eager {theirs}"
        return [Line(*named, peaks["ours"] / peaks["eager"], 1.0, at_most=True)]


def load_torch(threads, precision):
    """(train.bench.pytorch, None) or (None, why not)."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return None, "PyTorch is not installed"
    from train.bench import pytorch as bench_torch

    bench_torch.configure(threads, precision)
    return bench_torch, None


def disagreement(sides):
    """The largest difference of outputs and losses, relative, before and after one step."""
    ours, eager = sides["ours"], sides["eager"]
    worst = relative(ours.outputs(), eager.outputs())
    losses = [float(side.step()) for side in sides.values()]
    worst = max(worst, relative(np.array(losses[1:]), losses[0]))
    return max(worst, relative(ours.outputs(), eager.outputs()))


def relative(a, b):
    return float(np.abs(a - b).max() / np.abs(b).max())


def listed(seconds):
    return ", ".join(f"{name} {milliseconds(summary)}" for name, summary in seconds.items())


def milliseconds(seconds):
    value = seconds["median"] * 1e3
    return f"{value:,.0f} ms" if value >= 1000 else f"{value:.3g} ms"


def megabytes(count):
    return f"{count / 1e6:,.1f} MB"
