"""Pictures of what train.analyze finds, where matplotlib is installed."""

import numpy as np

from train.run.figures import finish, picture

MOST_POINTS = 4000  # a layer; more only blacken the picture


@picture(12, 10)
def layer_geometry(figure, planes, measured):
    """The published figure: a plane of tokens for each model, then two curves for all of them.

    planes: name -> [(T, 2), ...]. measured: name -> {"cosines": [...], "participation": [...]}.
    """
    figure.set_figwidth(6 * max(2, len(planes)))
    rows = figure.add_gridspec(2, 1)
    across, halves = rows[0].subgridspec(1, len(planes)), rows[1].subgridspec(1, 2)
    for i, (name, plane) in enumerate(planes.items()):
        draw_plane(figure.add_subplot(across[i]), name, plane)
    curves = {
        "cosines": ("cosine of a token's vectors in layers i and i + 1", "layer i"),
        "participation": ("participation ratio", "layer (0: the input)"),
    }
    for i, (key, (what, below)) in enumerate(curves.items()):
        axes = figure.add_subplot(halves[i])
        for name, found in measured.items():
            axes.plot(range(len(found[key])), found[key], marker="o", label=name)
        axes.margins(y=0.1)
        axes.xaxis.get_major_locator().set_params(integer=True)
        finish(axes, below, what)


def draw_plane(axes, name, plane):
    """Every layer's tokens in a colour of its own, and the path of the layers' means."""
    import matplotlib

    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, len(plane)))
    for layer, (points, colour) in enumerate(zip(plane, colours, strict=True)):
        label = f"layer {layer}" if len(plane) < 8 or layer in (0, len(plane) - 1) else None
        some = points[:: max(1, len(points) // MOST_POINTS)]
        axes.scatter(*some.T, s=2, alpha=0.4, color=colour, label=label, rasterized=True)
    means = np.array([points.mean(axis=0) for points in plane])
    for start, end in zip(means, means[1:], strict=False):
        arrow = {"arrowstyle": "->", "color": "black", "linewidth": 1.5}
        axes.annotate("", xy=end, xytext=start, arrowprops=arrow)
    axes.plot([], [], color="black", linestyle="-", label="means, layer to layer")
    axes.set(title=name, xlabel="first principal component")
    axes.set_ylabel("second principal component")
    axes.legend(markerscale=4, fontsize=8)


@picture(9, 4)
def position_factors(figure, factors):
    """How much each place amplifies (above 1) or mutes (below) the words that stand there.

    factors (n, d): what the channels of a word at each of n places are multiplied by.
    """
    axes = figure.subplots()
    places = np.arange(1, len(factors) + 1)
    low, middle, high = np.quantile(np.abs(factors), (0.1, 0.5, 0.9), axis=1)
    axes.fill_between(places, low, high, alpha=0.25, linewidth=0, label="10 to 90 % of channels")
    axes.plot(places, middle, label="median channel")
    axes.axhline(1, color="black", linewidth=0.8, label="unchanged")
    finish(axes, "place in the text", "factor on a word's channels (size)")
