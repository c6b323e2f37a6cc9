"""The paper's figures: loss against depth and against noise, learned coefficients, matrices."""

import numpy as np

from train.icl.report import NAMES, published
from train.icl.sequences import LAWS, title
from train.run.figures import picture

# Okabe and Ito's colours, which the colour-blind can tell apart; marks and dashes say the same.
STYLES = {
    "full": ("#0072B2", "o"), "free": ("#009E73", "s"), "head": ("#D55E00", "^"),
    "gd": ("#CC79A7", "v"),
}  # fmt: skip
DASHES = {"ConstRR": ":", "AdaRR": "--", "TunedRR": "-."}
COEFFICIENTS = {"xx": (0, 0), "xy": (0, 1), "yx": (1, 0), "yy": (1, 1)}
LOSS = "loss above the oracle's"
FLOOR = 1e-12  # of logarithmic axes


def draw(folder, config, results, known):
    """Write each figure as PNG and SVG, where matplotlib is installed."""
    laws, forms = len(known), [form for form in config.chosen("forms") if form != "full"]
    layers = preferred(4, config.depths())
    figures = {"layers": (loss_by_layers, laws, 5), "noise": (loss_by_noise, laws, 5)}
    if forms:
        figures["coefficients"] = (coefficients, len(forms), 3)
    if "full" in config.chosen("forms"):
        figures["matrices"] = (matrices, 2 * layers, layers)
    for name, (function, panels, columns) in figures.items():
        columns = min(columns, panels)
        rows = -(-panels // columns)
        write = picture(max(3 * columns, 7), 2.6 * rows + 0.8)(paint)
        write(folder / f"{name}.png", function, (rows, columns), panels, config, results, known)


def paint(figure, function, shape, panels, *found):
    """Let `function` fill the panels, name the axes, and put one legend above them all."""
    axes = figure.subplots(*shape, squeeze=False).reshape(-1)
    for unused in axes[panels:]:
        unused.set_visible(False)
    x, y = function(axes[:panels], *found)
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    legend = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            legend.setdefault(label, handle)
    if legend:
        columns = int(figure.get_figwidth() / 1.6)
        where = {"loc": "outside upper center", "ncols": columns, "fontsize": 8}
        figure.legend(legend.values(), legend, **where)


def loss_by_layers(axes, config, results, known):
    """A panel a law: the best seed (line), all seeds (dots), the published number (cross)."""
    depths = config.depths()
    for ax, name in zip(axes, known, strict=True):
        for form in config.chosen("forms"):
            color, mark = STYLES[form]
            losses = [results[form, name, layers]["losses"] for layers in depths]
            losses = np.maximum(np.array(losses, float), FLOOR)
            there = [published(form, name, layers) or np.nan for layers in depths]
            ax.plot(depths, losses, ".", color=color, markersize=3)
            ax.plot(
                depths,
                np.fmin.reduce(losses, axis=1),
                color=color,
                marker=mark,
                ms=4,
                label=NAMES[form],
            )
            ax.plot(depths, there, "x", color=color, markersize=7)
        ax.plot([], [], "kx", label="published")
        for baseline, dashes in DASHES.items():
            if (loss := known[name][baseline]["loss"]) > FLOOR:
                ax.axhline(loss, color="black", linewidth=0.9, linestyle=dashes, label=baseline)
        ax.set_yscale("log")
        ax.set_ylim(top=3)  # a model with one huge error lies above
        ax.set_xticks(depths)
        finish(ax, f"σ ~ {title(name)}")
    return "layers", LOSS


def loss_by_noise(axes, config, results, known):
    """A panel a law: loss at each σ of the deepest models' best seeds; shaded: trained on."""
    depth = config.depths()[-1]
    for ax, name in zip(axes, known, strict=True):
        law, levels = LAWS[name], known[name]["levels"]
        for form in config.chosen("forms"):
            (color, mark), profile = STYLES[form], results[form, name, depth]["profile"]
            profile = np.array(profile, float)
            ax.plot(levels, profile, color=color, marker=mark, markersize=3, label=NAMES[form])
        for baseline, dashes in DASHES.items():
            ax.plot(
                levels, known[name]["profiles"][baseline], "k", lw=0.9, ls=dashes, label=baseline
            )
        for low, high in (
            [(0, law.noise)] if law.mixed else [(s - 0.05, s + 0.05) for s in law.noise]
        ):
            ax.axvspan(low, high, color="0.9", zorder=0)
        ax.set_ylim(0, 1.8 * np.max(known[name]["profiles"]["AdaRR"]))
        finish(ax, f"σ ~ {title(name)}, {depth} layers")
    return "σ of the sequence", LOSS


def coefficients(axes, config, results, known):
    """A panel a form: the coefficients of each layer, for U(0, 5) and the greatest depth."""
    name, depth = preferred("5", list(known)), config.depths()[-1]
    forms = [form for form in config.chosen("forms") if form != "full"]
    for ax, form in zip(axes, forms, strict=True):
        if ax is not axes[0]:
            ax.sharey(axes[0])
        omega = omegas(results[form, name, depth]["parameters"])
        for (at, place), (color, mark) in zip(COEFFICIENTS.items(), STYLES.values(), strict=True):
            label = f"$\\omega_{{{at}}}$"
            ax.plot(np.arange(depth) + 1, omega[:, *place], color=color, marker=mark, label=label)
        ax.set_xticks(np.arange(depth) + 1)
        finish(ax, f"{NAMES[form]}, σ ~ {title(name)}")
    return "layer", "coefficient, for y of variance 1"


def omegas(parameters):
    """(L, 2, 2): ω of the layers, from the parameters of one model."""
    if "omega" in parameters:
        return np.asarray(parameters["omega"])
    p, q = np.asarray(parameters["p"]), np.asarray(parameters.get("q", [[1.0, 0.0]]))
    return p[:, :, None] * q[:, None, :]


def matrices(axes, config, results, known):
    """Q and P of each layer of the full form, for {1, 3} and 4 layers as in the paper."""
    name, depth = preferred("1+3", list(known)), preferred(4, config.depths())
    found = results["full", name, depth]["parameters"]
    for i, ax in enumerate(axes):
        kind, layer = "QP"[i // depth], i % depth
        matrix = np.asarray(found[kind])[layer]
        top = np.abs(matrix).max()
        shown = ax.imshow(matrix, cmap="PuOr", vmin=-top, vmax=top)
        ax.figure.colorbar(shown, ax=ax, shrink=0.8)
        ax.set_title(f"{kind}, layer {layer + 1}", fontsize=9)
    return f"column (numbers of a token, y last; σ ~ {title(name)})", "row"


def preferred(value, values):
    """`value` where it is among the values, else the last of them."""
    return value if value in values else values[-1]


def finish(ax, text):
    ax.set_title(text, fontsize=9)
    ax.grid(alpha=0.3)
