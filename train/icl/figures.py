"""The paper's figures: loss against depth, loss against noise, learned coefficients."""

import numpy as np

from train.icl.report import BASELINES, NAMES, published
from train.icl.sequences import LAWS, largest_noise, title
from train.run import figures

# Okabe and Ito's colours, which the colour-blind can tell apart; marks and dashes say the same.
STYLES = {
    "full": ("#0072B2", "o"), "free": ("#009E73", "s"), "head": ("#D55E00", "^"),
    "gd": ("#CC79A7", "v"),
}  # fmt: skip
DASHES = {"ConstRR": ":", "AdaRR": "--", "TunedRR": "-."}
COEFFICIENTS = {
    r"$\omega_{xx}$": (0, 0), r"$\omega_{xy}$": (0, 1), r"$\omega_{yx}$": (1, 0),
    r"$\omega_{yy}$": (1, 1),
}  # fmt: skip
FLOOR = 1e-12  # of logarithmic axes


def draw(folder, config, results, known):
    """Write each figure as PNG and SVG, where matplotlib is installed."""
    made = {
        "layers": loss_by_layers(config, results, known),
        "noise": loss_by_noise(config, results, known),
        "coefficients": coefficients(config, results),
    }
    for name, figure in made.items():
        if figure is not None:
            for kind in ("png", "svg"):
                figures.save(figure, folder / f"{name}.{kind}")


def panels(count, width=3.0, height=2.6, columns=5, **shared):
    """A figure with room for a legend and its `count` axes; (None, []) without matplotlib."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = figures.new_figure(max(width * columns, 7), height * rows + 0.6)
    if figure is None:
        return None, []
    axes = figure.subplots(rows, columns, squeeze=False, **shared).reshape(-1)
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def loss_by_layers(config, results, known):
    """A panel a law: the best seed (line), all seeds (dots), the published number (cross)."""
    figure, axes = panels(len(config.noise), sharex=True)
    for ax, name in zip(axes, config.noise, strict=False):
        for form in config.forms:
            color, mark = STYLES[form]
            depths = config.depths()
            losses = [results[form, name, layers]["losses"] for layers in depths]
            best = [max(min(found), FLOOR) for found in losses]
            ax.plot(depths, best, color=color, marker=mark, markersize=4, label=NAMES[form])
            for layers, found in zip(depths, losses, strict=True):
                ax.plot([layers] * len(found), np.maximum(found, FLOOR), ".", color=color, ms=2)
                there = published(form, name, layers)
                if there:
                    ax.plot(layers, there, "x", color=color, markersize=6)
        reference_lines(ax, [known[name][b]["loss"] for b in BASELINES], known[name])
        ax.set_yscale("log")
        ax.set_title(f"σ ~ {title(name)}", fontsize=9)
        ax.set_xticks(config.depths())
        ax.grid(alpha=0.3)
    return finished(figure, axes, "layers", "loss above the oracle's")


def reference_lines(ax, losses, _):
    for baseline, loss in zip(BASELINES, losses, strict=True):
        if loss > FLOOR:
            ax.axhline(
                loss, color="black", linewidth=0.9, linestyle=DASHES[baseline], label=baseline
            )


def loss_by_noise(config, results, known):
    """A panel a law: loss at each σ of the deepest models' best seeds; shaded: trained on."""
    figure, axes = panels(len(config.noise))
    depth = config.depths()[-1]
    for ax, name in zip(axes, config.noise, strict=False):
        for form in config.forms:
            cell, (color, mark) = results[form, name, depth], STYLES[form]
            ax.plot(
                cell["levels"], cell["profile"], color=color, marker=mark, ms=3, label=NAMES[form]
            )
        for baseline in BASELINES:
            profile = known[name][baseline]["profile"]
            ax.plot(
                known[name]["levels"], profile, "k", lw=0.9, ls=DASHES[baseline], label=baseline
            )
        if LAWS[name].mixed:
            ax.axvspan(0, largest_noise(LAWS[name]), color="0.93")
        else:
            for level in LAWS[name].noise:
                ax.axvline(level, color="0.85", linewidth=4, zorder=0)
        ordinary = [known[name][b]["profile"] for b in BASELINES[1:]]
        ax.set_ylim(0, max(1e-3, 2.5 * np.max(ordinary)))
        ax.set_title(f"σ ~ {title(name)}, {depth} layers", fontsize=9)
        ax.grid(alpha=0.3)
    return finished(figure, axes, "σ of the sequence", "loss above the oracle's")


def coefficients(config, results):
    """A panel a form: the four coefficients of each layer, for the last law and depth asked for."""
    forms = [form for form in config.forms if form != "full"]
    if not forms:
        return None
    name, depth = config.noise[-1], config.depths()[-1]
    figure, axes = panels(len(forms), width=3.6, height=3.2, sharey=True)
    for ax, form in zip(axes, forms, strict=False):
        omega = omegas(results[form, name, depth])
        for (label, place), (color, mark) in zip(
            COEFFICIENTS.items(), STYLES.values(), strict=True
        ):
            ax.plot(np.arange(depth) + 1, omega[:, *place], color=color, marker=mark, label=label)
        ax.axhline(0, color="black", linewidth=0.6)
        ax.set_xticks(np.arange(depth) + 1)
        ax.set_title(f"{NAMES[form]}, σ ~ {title(name)}", fontsize=9)
        ax.grid(alpha=0.3)
    return finished(figure, axes, "layer", "coefficient, for y of variance 1")


def omegas(cell):
    """(L, 2, 2): ω of the layers of the best seed."""
    parameters = {name: np.asarray(values) for name, values in cell["parameters"].items()}
    if "omega" in parameters:
        return parameters["omega"]
    q = parameters.get("q", np.array([[1.0, 0.0]]))
    return parameters["p"][:, :, None] * q[:, None, :]


def finished(figure, axes, x, y):
    """The figure with its axes labelled and one legend for all panels."""
    if figure is None:
        return None
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    for ax in axes[1:]:
        more = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        for label, handle in more.items():
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8)
    return figure
