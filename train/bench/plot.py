"""Time of a step against the length of a text, both axes logarithmic: slope 1 is linear."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from train.run.figures import save


def plot(records, path):
    """Write the curves of the sweep in `records`, bench.json's lines. False if there are none."""
    curves = {}
    for record in records:
        found = record["details"]
        if record["name"] != "sweep" or "workload" not in found:
            continue
        workload = found["workload"]
        tokens = workload["batch"] * workload["tokens"]
        for side, seconds in found["seconds"].items():
            if "products" in side or "inference" in side:
                continue
            key = (workload["model"], "minisum" if side == "ours" else f"PyTorch {side}")
            microseconds = seconds["median"] / tokens * 1e6
            curves.setdefault(key, []).append((workload["tokens"], microseconds))
    if not curves:
        return False
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for (model, side), points in sorted(curves.items()):
        style = "-" if side == "minisum" else "--"
        color = "C0" if model == "summation" else "C1"
        mark = "o" if side in ("minisum", "PyTorch eager") else "x"
        label = f"{model}, {side}"
        axes.plot(*zip(*points, strict=True), style, marker=mark, color=color, label=label)
    axes.set(xscale="log", yscale="log", xlabel="tokens of a text")
    axes.set_ylabel("microseconds a token, training step")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    save(figure, path, dpi=150)
    plt.close(figure)
    return True
