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
        "matrices": matrices(config, results),
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
        ax.plot([], [], "kx", label="published")
        for baseline in BASELINES:
            loss, dashes = known[name][baseline]["loss"], DASHES[baseline]
            if loss > FLOOR:
                ax.axhline(loss, color="black", linewidth=0.9, linestyle=dashes, label=baseline)
        ax.set_yscale("log")
        ax.set_title(f"σ ~ {title(name)}", fontsize=9)
        ax.set_xticks(config.depths())
        ax.grid(alpha=0.3)
    return finished(figure, axes, "layers", "loss above the oracle's")


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
    """A panel a form: the four coefficients of each layer, for U(0, 5) and the greatest depth."""
    forms = [form for form in config.forms if form != "full"]
    if not forms:
        return None
    name, depth = preferred("5", config.noise), config.depths()[-1]
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


def matrices(config, results):
    """Q and P of each layer of the full form, for {1, 3} and 4 layers as in the paper."""
    if "full" not in config.forms:
        return None
    name, depth = preferred("1+3", config.noise), preferred(4, config.depths())
    found = results["full", name, depth]["parameters"]
    figure, axes = panels(2 * depth, width=2.2, height=2.2, columns=depth, sharex=True, sharey=True)
    for i, ax in enumerate(axes):
        kind, l = "QP"[i // depth], i % depth
        matrix = np.asarray(found[kind])[l]
        top = np.abs(matrix).max()
        shown = ax.imshow(matrix, cmap="PuOr", vmin=-top, vmax=top)
        figure.colorbar(shown, ax=ax, shrink=0.8)
        ax.set_title(f"{kind}, layer {l + 1}", fontsize=9)
    return finished(figure, axes, f"number of the token, y last; σ ~ {title(name)}", "row")


def preferred(value, values):
    """`value` where it is among the values, else the last of them."""
    return value if value in values else values[-1]


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
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    if labels:
        columns = max(3, int(figure.get_figwidth() / 1.6))
        figure.legend(handles, labels, loc="outside upper center", ncols=columns, fontsize=8)
    return figure
