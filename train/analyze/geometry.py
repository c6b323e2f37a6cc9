"""How the vectors of tokens lie in space, layer after layer: what the published plots show.

Every function takes layers, a list of arrays (T, d): the same T tokens after the input and after
each block.
"""

import numpy as np

SMALLEST_NORM = 1e-12
SMALLEST_SPREAD = 1e-8


def principal_plane(layers):
    """All layers' tokens (T, 2) in the plane in which all of them together spread most.

    One fit over all layers, so that they can be compared.
    """
    centre, axes = principal_axes(layers)
    return [(layer - centre) @ axes for layer in layers]


def principal_axes(layers):
    """The mean (d,) of all layers' tokens, and the two axes (d, 2) along which they spread most.

    Each axis is turned so that its largest component is positive: the sign of a principal component
    has no meaning.
    """
    stacked = np.concatenate(layers).astype(np.float64)
    centre = stacked.mean(axis=0)
    # Eigenvectors of the (d, d) scatter: the tokens are many more than the channels.
    _, vectors = np.linalg.eigh((stacked - centre).T @ (stacked - centre))
    axes = vectors[:, ::-1][:, :2]
    return centre, axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])


def consecutive_cosines(layers):
    """For each pair of consecutive layers, the mean cosine of a token's vectors in the two."""
    unit = [
        layer / np.maximum(np.linalg.norm(layer, axis=1, keepdims=True), SMALLEST_NORM)
        for layer in layers
    ]
    return [float((a * b).sum(axis=1).mean()) for a, b in zip(unit, unit[1:], strict=False)]


def participation_ratios(layers):
    """(Σ λ)² / (Σ λ² + 1e-8) of each layer, λ the variances along the principal axes of its tokens.

    About how many directions the layer uses: 1 if all tokens lie on a line, d if they spread
    equally in all directions.
    """
    ratios = []
    for layer in layers:
        variances = np.linalg.eigvalsh(np.cov(layer.astype(np.float64), rowvar=False))
        ratios.append(float(variances.sum() ** 2 / ((variances**2).sum() + SMALLEST_SPREAD)))
    return ratios
