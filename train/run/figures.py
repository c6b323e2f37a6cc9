"""Pictures of a result, as PNG beside result.json, where matplotlib is installed."""

import io
import warnings

import numpy as np

from minisum.files import write_bytes


def new_figure(width, height):
    """A matplotlib figure (inches), or None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure(figsize=(width, height), layout="constrained")


def save(figure, path, dpi=120):
    """Write the figure, whole or not at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a character that the font lacks is drawn as a box
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=dpi)
    write_bytes(path, content.getvalue())


def predicted_against_true(path, true, predicted, target, baseline):
    """Every test example as a point, the diagonal, and how errors spread against the baseline's.

    true, predicted (N,) in the data's units; baseline: (name, its predictions (N,)).
    """
    figure = new_figure(11, 5)
    if figure is None:
        return
    left, right = figure.subplots(1, 2)
    low, high = float(true.min()), float(true.max())
    # Labels are often fractions of few raters: a little noise shows how many points coincide.
    jitter = np.random.default_rng(0).normal(0, 0.006 * (high - low), len(true))
    alpha = float(np.clip(300 / len(true), 0.08, 0.8))
    left.scatter(true + jitter, predicted, s=12, alpha=alpha, linewidths=0)
    left.plot([low, high], [low, high], color="black", linewidth=1)
    left.set_xlabel(f"true {target}", parse_math=False)
    left.set_ylabel(f"predicted {target}", parse_math=False)
    left.set_title(f"{len(true):,} test examples")
    name, other = baseline
    for label, values in ((name, other), ("this model", predicted)):
        errors = np.sort(np.abs(values - true))
        right.plot(errors, (np.arange(len(errors)) + 1) / len(errors), label=label)
    right.set_xlabel("absolute error")
    right.set_ylabel("fraction of examples with no larger error")
    right.set_ylim(0, 1.02)
    right.grid(alpha=0.3)
    right.legend()
    save(figure, path)


def errors_by_step(path, curves):
    """Squared error against the step ahead. curves: name -> (horizon,) errors."""
    figure = new_figure(8, 5)
    if figure is None:
        return
    axes = figure.subplots()
    for name, errors in curves.items():
        steps = np.arange(1, len(errors) + 1)
        thick = 2.5 if name == "this model" else 1.2
        axes.plot(steps, errors, label=name, linewidth=thick, marker="." if len(steps) < 3 else "")
    axes.set_xlabel("steps ahead")
    axes.set_ylabel("mean squared error, standardised")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)


def forecasts(path, panels, past, unit_names):
    """A panel a window: the end of its past, what came, and what was forecast.

    panels: list of (title, past values (p,), truth (horizon,), name -> forecast (horizon,)).
    past: how many steps of the past to show. unit_names: the axis label of each panel.
    """
    rows = -(-len(panels) // 2)
    figure = new_figure(12, 2.8 * rows)
    if figure is None:
        return
    grid = figure.subplots(rows, 2, squeeze=False).reshape(-1)
    for axes, (title, before, truth, curves), unit in zip(grid, panels, unit_names, strict=False):
        before = before[-past:]
        ahead = np.arange(1, len(truth) + 1)
        axes.plot(np.arange(1 - len(before), 1), before, color="grey", linewidth=1)
        axes.plot(ahead, truth, color="black", linewidth=1.2, label="truth")
        for name, values in curves.items():
            thick = 2 if name == "this model" else 1
            axes.plot(ahead, values, linewidth=thick, label=name)
        axes.axvline(0, color="grey", linewidth=0.8, linestyle=":")
        axes.set_title(title, fontsize=10, parse_math=False)
        axes.set_ylabel(unit, parse_math=False)
        axes.grid(alpha=0.3)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    grid[0].legend(fontsize=8)
    save(figure, path)
