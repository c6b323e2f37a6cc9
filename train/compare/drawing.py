"""The pictures of a comparison: scores and costs of every mixer, and time against length."""

import numpy as np

from train.run.figures import COLOURS, finish, picture

LINES = ("--", ":", "-.", "-")
# Of reference: power of n, name, dashes.
SLOPES = ((1, "proportional to n", (0, (1, 2))), (2, "proportional to n²", (0, (4, 2, 1, 2))))


@picture(13, 5)
def draw_comparison(figure, rows, results, task, baselines):
    """Score, speed and memory of every mixer; a dot for each seed, a line for each baseline."""
    figure.set_figheight(1.6 + 0.34 * max(len(rows), 5))
    places = {row["mixer"]: place for place, row in enumerate(rows[::-1])}
    panels = (
        ("mean", 1, "C4", f"test {task.metric.replace('_', ' ')}, mean of the seeds"),
        ("tokens_per_second", 1000, "C0", "1,000 tokens per second"),
        ("step_memory_bytes", 2**20, "C0", "MiB a step"),
    )
    grid = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    for axes, (key, unit, colour, label) in zip(grid, panels, strict=True):
        values = [np.nan if row[key] is None else row[key] / unit for row in rows]
        axes.barh([places[row["mixer"]] for row in rows], values, height=0.6, color=colour)
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
    scores = grid[0]
    scores.set_yticks(list(places.values()), list(places))
    seeds = [run for run in results if run[task.metric] is not None]
    at = [run[task.metric] for run in seeds], [places[run["mixer"]] for run in seeds]
    scores.plot(*at, "o", color="black", markersize=4, label="one seed")
    for i, (name, value) in enumerate(baselines.items()):
        line = {"linestyle": LINES[i % 4], "color": f"C{i + 1}"}
        scores.axvline(value, label=f"{name} {value:.3g}", **line)
    if task.higher_is_better:
        scores.set_xlim(0, 1.02)
    elif min(baselines.values()) > 0:
        scores.set_xscale("log")
    figure.legend(loc="outside upper left", fontsize=8, ncols=4)


@picture(13, 5.5)
def draw_scaling(figure, scaling):
    """Time and memory of a layer against the tokens, with the slopes of n and n² in grey."""
    quantities = (("seconds", "milliseconds", 1e-3), ("memory_bytes", "MiB", 2**20))
    lengths = np.array(sorted({r["n"] for row in scaling for r in row["rows"]}))
    panels = figure.subplots(1, 2, sharex=True)
    for axes, (key, label, unit) in zip(panels, quantities, strict=True):
        for number, row in enumerate(scaling):
            ns, values = zip(*((r["n"], r[key] / unit) for r in row["rows"]), strict=True)
            marker = "os^vD*"[number // len(COLOURS) % 6]
            axes.loglog(ns, values, marker=marker, markersize=4, label=row["mixer"])
        start = 0.5 * min(row["rows"][0][key] / unit for row in scaling)
        axes.set_ylim(0.8 * start, axes.get_ylim()[1])  # n² may leave the picture
        for power, name, dashes in SLOPES:
            slope = start * (lengths / lengths[0]) ** power
            axes.plot(lengths, slope, color="grey", linewidth=2, linestyle=dashes, label=name)
        axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
        axes.minorticks_off()
        finish(axes, "tokens n", f"{label}, forward and backward of one layer", False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=7)
