"""Time of a step against the length of a text, both axes logarithmic: slope 1 is linear."""

from train.run.figures import finish, picture


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
    axes = figure.subplots()
    for (model, side), points in sorted(curves.items()):
        style = "-" if side == "minisum" else "--"
        color = "C0" if model == "summation" else "C1"
        mark = "o" if side in ("minisum", "PyTorch eager") else "x"
        label = f"{model}, {side}"
        axes.plot(*zip(*points, strict=True), style, marker=mark, color=color, label=label)
    axes.set(xscale="log", yscale="log")
    finish(axes, "tokens of a text", "microseconds a token, training step")
