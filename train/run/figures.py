"""Pictures of a result, as PNG and SVG beside result.json, where matplotlib is installed."""

import functools
import io
import warnings

import numpy as np

from minisum.files import write_bytes

# Of Okabe and Ito, told apart by the colour-blind; after seven lines dashes tell them apart too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")


def picture(width, height):
    """A decorator: draw(figure, ...) becomes a function of (path, ...) that writes a picture.

    width, height: inches. path: of the PNG; an SVG is written beside it. The function returns
    whether matplotlib is there.
    """

    def decorate(draw):
        @functools.wraps(draw)
        def write(path, *arguments):
            try:
                from matplotlib import cycler, rc_context
                from matplotlib.figure import Figure
            except ImportError:
                return False
            styles = cycler(linestyle=DASHES) * cycler(color=COLOURS)
            # Warned of where the font lacks a character: a box is drawn.
            with (
                rc_context({"axes.prop_cycle": styles, "svg.hashsalt": path.stem}),
                warnings.catch_warnings(action="ignore"),
            ):
                figure = Figure(figsize=(width, height), layout="constrained")
                draw(figure, *arguments)
                for kind, told in (("png", {}), ("svg", {"Date": None})):
                    content = io.BytesIO()
                    figure.savefig(content, format=kind, dpi=120, metadata=told)
                    write_bytes(path.with_suffix(f".{kind}"), content.getvalue())
            return True

        return write

    return decorate


def finish(axes, x, y, legend=True):
    """Name the axes, in words that may be a user's, and add a grid and a legend."""
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(fontsize=8)


@picture(11, 5)
def predicted_against_true(figure, true, predicted, target, baseline):
    """Every test example as a point, the diagonal, and how errors spread against the baseline's.

    true, predicted (N,) in the data's units; baseline: (name, its predictions (N,)).
    """
    left, right = figure.subplots(1, 2)
    low, high = float(true.min()), float(true.max())
    # Labels are often fractions of few raters: a little noise shows how many points coincide.
    jitter = np.random.default_rng(0).normal(0, 0.006 * (high - low), len(true))
    alpha = float(np.clip(300 / len(true), 0.08, 0.8))
    dots = {"s": 12, "alpha": alpha, "linewidths": 0, "rasterized": True}
    left.scatter(true + jitter, predicted, label=f"{len(true):,} test examples", **dots)
    left.plot([low, high], [low, high], color="black", linewidth=1, label="predicted = true")
    finish(left, f"true {target}", f"predicted {target}")
    name, other = baseline
    for label, values in ((name, other), ("this model", predicted)):
        errors = np.sort(np.abs(values - true))
        right.plot(errors, (np.arange(len(errors)) + 1) / len(errors), label=label)
    right.set_ylim(0, 1.02)
    finish(right, "absolute error", "fraction of examples with no larger error")


@picture(8, 5)
def errors_by_step(figure, curves):
    """Squared error against the step ahead. curves: name -> (horizon,) errors."""
    axes = figure.subplots()
    for name, errors in curves.items():
        steps = np.arange(1, len(errors) + 1)
        thick = 2.5 if name == "this model" else 1.2
        axes.plot(steps, errors, label=name, linewidth=thick, marker="." if len(steps) < 3 else "")
    axes.set_ylim(bottom=0)
    finish(axes, "steps ahead", "mean squared error, standardised")


@picture(12, 8.4)
def forecasts(figure, panels, past):
    """A panel a window: the end of its past, what came, and what was forecast.

    panels: list of (title, unit, past values (p,), truth (horizon,), name -> forecast (horizon,)).
    past: how many steps of the past to show.
    """
    grid = figure.subplots(-(-len(panels) // 2), 2, squeeze=False, sharex=True).reshape(-1)
    first = {}  # the panel of each unit: the others of it share its axis
    for axes, (title, unit, before, truth, curves) in zip(grid, panels, strict=False):
        if first.setdefault(unit, axes) is not axes:
            axes.sharey(first[unit])
        before = before[-past:]
        ahead = np.arange(1, len(truth) + 1)
        grey = {"color": "grey", "linewidth": 1, "linestyle": "-"}
        axes.plot(np.arange(1 - len(before), 1), before, label="past", **grey)
        axes.plot(ahead, truth, color="black", linewidth=1.2, linestyle="-", label="truth")
        for name, values in curves.items():
            axes.plot(ahead, values, linewidth=2 if name == "this model" else 1, label=name)
        axes.axvline(0, color="grey", linewidth=0.8, linestyle=":")
        axes.set_title(title, fontsize=10, parse_math=False)
        finish(axes, "steps ahead" if axes in grid[-2:] else "", unit, legend=axes is grid[0])
