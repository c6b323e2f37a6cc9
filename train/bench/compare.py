"""One workload on both sides: measured, compared, and written as lines of the benchmark's table."""

import dataclasses
import os

import numpy as np

from minisum import backend
from minisum.shards import Workers
from train.bench.measure import bandwidth, describe_machine, interleaved, peak_memory, summary
from train.bench.sides import Ours

VECTORS = 7  # that a step must read or write once: g, and θ, m, v both ways
# Largest relative difference between the outputs of the two sides, before and after a step.
AGREEMENT, AGREEMENT_TF32 = 2e-3, 5e-2


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

    def __init__(self, name, threads, tf32, modes, seconds):
        if tf32:
            os.environ["CUPY_TF32"] = "1"  # read when CuPy is imported
        self.xp = backend.get(name)
        self.on_device = self.xp is not np
        self.threads, self.tf32, self.seconds = threads, tf32, seconds
        self.torch, self.why_not = load_torch(threads, tf32)
        self.device = "cuda" if self.on_device else "cpu"
        self.modes = modes or ["eager", "compiled"] + ["reduce-overhead"] * self.on_device
        workers = Workers(None if self.on_device else threads)
        self.bandwidth = bandwidth(self.xp, workers)

    def conditions(self):
        """What the numbers depend on, name -> text."""
        torch = self.torch.description(self.device) if self.torch else self.why_not
        return describe_machine(self.xp, self.threads) | {
            "PyTorch": torch,
            "precision": "float32 storage, TF32 products" if self.tf32 else "float32",
            "copy": f"{self.bandwidth / 1e9:.1f} GB/s, reads and writes",
        }

    def sides(self, workload, initial, batch, modes):
        """name -> a function that makes the side."""
        makers = {"ours": lambda: Ours(workload, initial, batch, self.xp, self.threads)}
        if self.torch:
            for mode in modes:
                makers[mode] = lambda mode=mode: self.torch.Theirs(
                    workload, initial, batch, self.device, mode
                )
        return makers

    def compare(self, workload, modes=None, with_inference=False, beside=None):
        """Everything that is measured about one workload: a dict, ready for JSON.

        modes: of PyTorch, by default all; beside: another workload, timed in turn, ours alone.
        """
        initial, batch = workload.initial(), workload.data()
        makers = self.sides(workload, initial, batch, self.modes if modes is None else modes)
        sides = {name: make() for name, make in makers.items()}
        runs, found = {}, {"workload": dataclasses.asdict(workload)}
        if "eager" in sides:
            found["outputs_differ"] = self.disagreement(sides)
        for name, side in sides.items():
            runs[name] = (side.step, side.synchronize)
            if with_inference and name in ("ours", "eager"):
                runs[f"{name} inference"] = (side.infer, side.synchronize)
            if name in ("ours", "eager"):
                runs[f"{name} products"] = (side.product_runner(True), side.synchronize)
        if beside:
            other = Ours(beside, beside.initial(), beside.data(), self.xp, self.threads)
            runs["beside"] = (other.step, other.synchronize)
        times = interleaved(runs, self.seconds, self.on_device)
        found["seconds"] = {name: summary(values) for name, values in times.items()}
        tokens = workload.batch * workload.tokens
        found["tokens_per_second"] = {
            name: tokens / seconds["median"]
            for name, seconds in found["seconds"].items()
            if "products" not in name and name != "beside"
        }
        found["products_flop"] = workload.flops(training=True)
        traffic = VECTORS * 4 * sides["ours"].params.count
        found["limit_seconds"] = (
            found["seconds"]["ours products"]["median"] + traffic / self.bandwidth
        )
        del sides, runs
        found["peak_bytes"] = {"ours": peak_memory(makers["ours"], self.xp)}
        if "eager" in makers:
            found["peak_bytes"]["eager"] = self.torch.peak_memory(makers["eager"], self.device)
        return found

    def disagreement(self, sides):
        """The largest difference of outputs and losses, relative, before and after one step."""
        ours, eager = sides["ours"], sides["eager"]
        worst = relative(ours.outputs(), eager.outputs())
        losses = [float(side.step()) for side in sides.values()]
        worst = max(worst, relative(np.array(losses[1:]), losses[0]))
        return max(worst, relative(ours.outputs(), eager.outputs()))

    def lines(self, name, what, found, target=None):
        """The line of the time of a step, and of its memory."""
        seconds, notes = found["seconds"], []
        ours = seconds["ours"]
        line = Line(name, what, milliseconds(ours), self.why_not or "", details=found, notes=notes)
        theirs = {mode: seconds[mode] for mode in self.modes if mode in seconds}
        if theirs:
            best = min(theirs, key=lambda mode: theirs[mode]["median"])
            line.theirs = f"{best} {milliseconds(theirs[best])}"
            line.ratio = theirs[best]["median"] / ours["median"]
            line.target = target
            least = min(their["min"] for their in theirs.values()) / ours["min"]
            others = ", ".join(f"{mode} {milliseconds(theirs[mode])}" for mode in theirs)
            notes.append(f"PyTorch: {others}; ratio of the minima {least:.2f}")
        notes.append(self.products_note(found))
        differ = found.get("outputs_differ")
        if differ is not None:
            notes.append(f"outputs agree to {differ:.0e} of their size")
            if not differ <= (AGREEMENT_TF32 if self.tf32 else AGREEMENT):
                notes[-1] = f"THE OUTPUTS DIFFER by {differ:.0e} of their size: no comparison"
                line.target = line.ratio = None
        return [line, *self.memory_lines(name, what, found)]

    def products_note(self, found):
        seconds, flop = found["seconds"], found["products_flop"]
        parts = []
        for who, key in (("ours", "ours products"), ("PyTorch", "eager products")):
            if key in seconds:
                rate = flop / seconds[key]["median"] / 1e9
                parts.append(f"{who} {milliseconds(seconds[key])} ({rate:,.0f} GFLOP/s)")
        fraction = found["limit_seconds"] / seconds["ours"]["median"]
        speed = found["tokens_per_second"]["ours"]
        limit = found["limit_seconds"] * 1e3
        return (
            f"products alone: {', '.join(parts)}; our step runs at {fraction:.0%} of its limit "
            f"({limit:.2f} ms), {speed:,.0f} tokens/s"
        )

    def memory_lines(self, name, what, found):
        peaks = found.get("peak_bytes", {})
        if "eager" not in peaks:
            return []
        ours, theirs = peaks["ours"], peaks["eager"]
        text = f"  its peak memory ({name})"
        return [
            Line(
                f"{name} memory", text, megabytes(ours), f"eager {megabytes(theirs)}",
                ours / theirs, 1.0, at_most=True,
            )
        ]  # fmt: skip


def load_torch(threads, tf32):
    """(train.bench.pytorch, None) or (None, why not)."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return None, "PyTorch is not installed"
    from train.bench import pytorch as bench_torch

    bench_torch.configure(threads, tf32)
    return bench_torch, None


def relative(a, b):
    return float(np.abs(a - b).max() / np.abs(b).max())


def milliseconds(seconds):
    value = seconds["median"] * 1e3
    return f"{value:,.0f} ms" if value >= 1000 else f"{value:.3g} ms"


def megabytes(count):
    return f"{count / 1e6:,.1f} MB"
