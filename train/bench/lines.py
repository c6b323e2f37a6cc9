"""The lines of the benchmark: which workloads, against what, and how fast they should be."""

from functools import partial

from train.bench.compare import Line, listed, megabytes, milliseconds
from train.bench.measure import peak_memory
from train.bench.sides import Workload, two_steps
from train.bench.training import training
from train.run.figures import finish, picture


def step(bench):
    n, target = (512, None) if bench.on_device else (256, 2.0)
    what = f"summation classifier step, 64 x {n} tokens, width 256"
    found = bench.compare(Workload("summation", 64, n))
    return bench.lines("step", what, found, bench.target(target, float32=2.5, tf32=4.5))


def attention(bench):
    """The same step against attention, in its two forms."""
    summation = Workload("summation", 64, 512)
    others = {
        "4 heads of 256, as published": (Workload("attention", 64, 512, head_width=256), 18.0),
        "4 heads of 64": (Workload("attention", 64, 512), 8.0),
    }
    lines = []
    for what, (workload, target) in others.items():
        found = bench.compare(workload, beside=summation)
        ours = {"our attention": found["seconds"]["ours"]}
        theirs = {f"PyTorch {mode}": seconds for mode, seconds in bench.theirs(found).items()}
        sides = theirs | ours if workload.head_width or not theirs else theirs
        named = "attention", f"summation against attention, 64 x 512, {what}"
        goal = bench.target(target)
        line = bench.line(*named, found["seconds"]["beside"], sides, found, goal)
        line.notes += [listed(ours | theirs), "attention's " + bench.products_note(found)]
        lines += [line, *bench.memory_lines(f"attention, {what}", what, found)]
    return lines


def document(bench):
    """Constant memory and linear time."""
    short, long, peaks, steps = 2**10, 2**20, {}, {}
    for n in (short, *(2**k for k in range(12, 21))):
        workload = Workload("summation", 1, n, repeat_positions=True)
        make = bench.makers(workload)["ours"]
        steps[n] = make().step
        if n in (short, long):
            size = sum(a.nbytes for a in workload.data.values())
            peaks[n] = peak_memory(partial(two_steps, make), bench.xp) + size
    steps.pop(short)
    times = bench.times(steps)
    growth = {n: times[n]["median"] / times[n // 2]["median"] for n in times if n // 2 in times}
    steepest = max(growth, key=growth.get)
    details = {"seconds": times, "peak_bytes": peaks}
    steps = ", ".join(f"{n:,}: {milliseconds(t)}" for n, t in times.items())
    return [
        Line(
            "document memory", "one document of 1,048,576 tokens: memory above one of 1,024",
            megabytes(peaks[long]), f"1,024 tokens: {megabytes(peaks[short])}",
            (peaks[long] - peaks[short]) / 1e6, 300, at_most=True, unit=" MB", details=details,
        ),
        Line(
            "document time", f"t(2n) / t(n), steepest from 4,096 up (at n = {steepest // 2:,})",
            milliseconds(times[steepest]), milliseconds(times[steepest // 2]), growth[steepest],
            2.1, at_most=True, notes=[f"a step at {steps}"], details=details,
        ),
    ]  # fmt: skip


def causal(bench):
    found = bench.compare(Workload("causal", 8, 256, width=512, vocab=8192, heads=8))
    what = "causal LM step (3 summation + 1 attention), 8 x 256, width 512"
    goal = bench.target(1.6, float32=1.2, tf32=1.2, bf16=1.5)
    return bench.lines("causal", what, found, goal)


def large(bench):
    """A language model of a real size, on a GPU alone."""
    if not bench.on_device:
        return []
    pattern = ",".join(["summation*3,attention"] * 3)
    sizes = {"width": 768, "vocab": 32_768, "heads": 12, "pattern": pattern}
    found = bench.compare(Workload("causal", 32, 512, **sizes))
    what = "causal LM step (9 summation + 3 attention), 32 x 512, width 768"
    goal = bench.target(None, float32=1.05, tf32=1.05, bf16=1.2)
    return bench.lines("large", what, found, goal)


SWEEP_TOKENS = 16_384  # a batch, and the longest text that PyTorch is measured on


def sweep(bench):
    """Time against length: the curves of the plot, a point at a time."""
    for model in ("summation", "attention"):
        for k in range(8, 15):
            workload = Workload(model, SWEEP_TOKENS // 2**k, 2**k)
            what = f"{model} step, {workload.batch} x {2**k:,} tokens"
            yield from curve_point(bench, what, bench.compare(workload, with_inference=True))
    for k in (16, 18, 20):
        workload = Workload("summation", 1, 2**k, repeat_positions=True)
        found = bench.compare(workload, modes=[], with_inference=True)
        yield from curve_point(bench, f"summation step, 1 x {2**k:,} tokens in chunks", found)


def curve_point(bench, what, found):
    line, *memory = bench.lines("sweep", what, found)
    for who in ("ours", "eager"):
        if f"{who} inference" in found["seconds"]:
            seconds = found["seconds"][f"{who} inference"]
            line.notes.append(f"inference, {who}: {milliseconds(seconds)}")
    for one in memory:
        one.target = None
    return [line, *memory]


def curves_of(records):
    """(model, side) -> [(tokens of a text, microseconds a token)] of bench.json's sweep."""
    curves = {}
    for record in records:
        found = record["details"]
        if record["name"] != "sweep" or "workload" not in found:
            continue
        workload = found["workload"]
        tokens = workload["batch"] * workload["tokens"]
        for side, seconds in found["seconds"].items():
            if "products" not in side and "inference" not in side:
                key = (workload["model"], "minisum" if side == "ours" else f"PyTorch {side}")
                microseconds = seconds["median"] / tokens * 1e6
                curves.setdefault(key, []).append((workload["tokens"], microseconds))
    return curves


@picture(7, 4.5)
def plot(figure, curves):
    """Time of a step per token against the length of a text: what is flat is linear."""
    axes = figure.subplots()
    for (model, side), points in sorted(curves.items()):
        style = "-" if side == "minisum" else "--"
        color = "C0" if model == "summation" else "C1"
        mark = "o" if side in ("minisum", "PyTorch eager") else "x"
        label = f"{model}, {side}"
        axes.plot(*zip(*points, strict=True), style, marker=mark, color=color, label=label)
    axes.set(xscale="log", yscale="log")
    finish(axes, "tokens of a text", "microseconds a token, training step")


TABLE = {
    "step": step, "training": training, "attention": attention, "document": document,
    "causal": causal, "large": large, "sweep": sweep,
}  # fmt: skip
