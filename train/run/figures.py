"""Pictures of a result, as PNG beside result.json, where matplotlib is installed."""

import functools
import io
import warnings

import numpy as np

from minisum.files import write_bytes


def picture(width, height):
    """A decorator: draw(figure, ...) becomes a function of (path, ...) that writes a picture.

    width, height: inches. The function returns whether matplotlib is there.
    """

    def decorate(draw):
        @functools.wraps(draw)
        def write(path, *arguments):
            try:
                from matplotlib.figure import Figure
            except ImportError:
                return False
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure, *arguments)
            content = io.BytesIO()
            with warnings.catch_warnings(action="ignore"):  # the font lacks a character: a box
                figure.savefig(content, format=path.suffix[1:], dpi=120)
            write_bytes(path, content.getvalue())
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
    left.scatter(true + jitter, predicted, s=12, alpha=alpha, linewidths=0)
    left.plot([low, high], [low, high], color="black", linewidth=1)
    left.set_title(f"{len(true):,} test examples")
    finish(left, f"true {target}", f"predicted {target}", legend=False)
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
    grid = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).reshape(-1)
    for axes, (title, unit, before, truth, curves) in zip(grid, panels, strict=False):
        before = before[-past:]
        ahead = np.arange(1, len(truth) + 1)
        axes.plot(np.arange(1 - len(before), 1), before, color="grey", linewidth=1)
        axes.plot(ahead, truth, color="black", linewidth=1.2, label="truth")
        for name, values in curves.items():
            axes.plot(ahead, values, linewidth=2 if name == "this model" else 1, label=name)
        axes.axvline(0, color="grey", linewidth=0.8, linestyle=":")
        axes.set_title(title, fontsize=10, parse_math=False)
        finish(axes, "", unit, legend=axes is grid[0])
