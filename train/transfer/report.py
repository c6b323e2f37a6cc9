"""What the experiment prints and writes: a line a cell, a table, and accuracy against steps."""

import statistics

from minisum import files
from train.run.figures import finish as finish_axes
from train.run.figures import picture
from train.run.tables import aligned

STYLES = {"all": "-", "matched": "-.", "words": "--", "random": ":", "matched_weights": "-."}


def line(cell):
    what = f"{cell['mixer']}, {cell['start']}"
    if "zero_shot" in cell:
        return f"{what}: zero-shot {cell['zero_shot']:.4f}, frozen {cell['frozen']:.4f}"
    curve = ", ".join(f"{step}: {accuracy:.4f}" for step, accuracy in cell["curve"])
    end = f", diverged at {cell['diverged_at']}" if cell["diverged_at"] else ""
    return f"{what}, lr {cell['lr']:g}, seed {cell['seed']}: {curve}{end}, {cell['seconds']:.0f} s"


def finish(report, folder, config, settings, results, untrained):
    """Print the table; write transfer.json and transfer.png.

    results: a list of runs for each mixer and start, one a seed. untrained: a cell for each.
    """
    rows = [["mixer", "begins with", "zero-shot", "frozen", "lr", "accuracy"]]
    for runs, before in zip(results, untrained, strict=True):
        rows.append(
            [before["mixer"], before["start"], f"{before['zero_shot']:.3f}",
             f"{before['frozen']:.3f}", f"{runs[0]['lr']:g}", spread(runs)]
        )  # fmt: skip
    report.say("\n".join(["", *aligned(rows, 2)]))
    content = {"settings": settings, "results": results, "untrained": untrained}
    files.write_json(folder.path / "transfer.json", content)
    draw(folder.path / "transfer.png", config.dataset, results)
    report.say(f"files in {folder}")


def spread(runs):
    """Mean ± standard deviation of the test accuracies; a run that diverged has none."""
    values = [run["test_accuracy"] for run in runs if run["test_accuracy"] is not None]
    if not values:
        return "diverged"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


@picture(10, 9)
def draw(figure, dataset, results):
    """A panel a mixer: the mean accuracy of the seeds against the steps, a line a start."""
    mixers = list(dict.fromkeys(runs[0]["mixer"] for runs in results))
    steps = sorted({step for runs in results for step, _ in runs[0]["curve"]})
    size = {"squeeze": False, "sharex": True, "sharey": True}
    grid = figure.subplots(-(-len(mixers) // 3), 3, **size).reshape(-1)
    for axes in grid[len(mixers) :]:
        axes.set_visible(False)
    for axes, mixer in zip(grid, mixers, strict=False):
        for runs in (runs for runs in results if runs[0]["mixer"] == mixer):
            points = zip(*(run["curve"] for run in runs), strict=False)
            curve = [(at[0][0], statistics.mean(value for _, value in at)) for at in points]
            start = runs[0]["start"]
            style = f"{STYLES[start]}C{list(STYLES).index(start)}"
            axes.plot(*zip(*curve, strict=True), style, label=start, marker=".")
        axes.set_xscale("log")
        axes.set_xticks(steps, [str(step) for step in steps])
        axes.minorticks_off()
        axes.set_title(mixer, fontsize=9)
        finish_axes(axes, "", "", legend=False)
    shown = {line.get_label(): line for axes in grid for line in axes.lines}
    figure.legend(shown.values(), shown, loc="outside upper center", ncols=len(shown))
    figure.supxlabel("steps")
    figure.supylabel(f"test accuracy, {dataset}")
