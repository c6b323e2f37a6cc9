"""Pictures: two forms of each, the same bytes again, and lines that the colour-blind tell apart."""

import itertools
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from train.analyze import layer_figures
from train.compare import drawing
from train.run.figures import COLOURS, DASHES, forecasts

# Linear RGB as a deuteranope and a protanope see it: Viénot, Brettel and Mollon 1999.
SIGHTS = {
    "all": np.eye(3),
    "red-blind": [[0.1124, 0.8876, 0], [0.1124, 0.8876, 0], [0.004, -0.004, 1]],
    "green-blind": [[0.2928, 0.7072, 0], [0.2928, 0.7072, 0], [-0.0223, 0.0223, 1]],
}


@pytest.fixture
def laid_out(monkeypatch, tmp_path):
    """laid_out(function, ...): the figure that a picture's function draws, unpainted."""
    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: kept.append(figure))

    def draw(function, *arguments):
        assert function(tmp_path / "a.png", *arguments)
        kept[0].draw_without_rendering()
        return kept[0]

    return draw


def test_a_picture_is_written_twice_and_always_the_same(tmp_path):
    factors = 1 + np.random.default_rng(0).normal(0, 0.1, (12, 8))
    written = []
    for _ in range(2):
        assert layer_figures.position_factors(tmp_path / "a.png", factors)
        written.append([(tmp_path / f"a.{kind}").read_bytes() for kind in ("png", "svg")])
    assert written[0] == written[1]
    assert written[0][0][:4] == b"\x89PNG" and b"<svg" in written[0][1]


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_are_told_apart(sight):
    """Where two of matplotlib's own ten are nearly one."""
    assert nearest(COLOURS, sight) > 0.14
    assert nearest(colormaps["tab10"].colors, sight) < 0.1 or sight == "all"


def nearest(colours, sight):
    """The least distance between two of the colours, in sRGB as somebody sees it."""
    linear = np.array([to_rgb(colour) for colour in colours]) ** 2.2
    seen = (linear @ np.transpose(SIGHTS[sight])).clip(0) ** (1 / 2.2)
    return min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2))


def scaling(mixers):
    return [
        {"mixer": f"m{i}", "rows": [{"n": n, "seconds": (i + 1) * n * 1e-6, "memory_bytes": n << 9}
                                    for n in (64, 128, 256)]}
        for i in range(mixers)
    ]  # fmt: skip


def test_thirty_mixers_and_two_slopes_are_told_apart(laid_out):
    figure = laid_out(drawing.draw_scaling, scaling(30))
    for axes in figure.axes:
        lines = axes.get_lines()
        looks = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines]
        assert len(set(looks[:30])) == 30 and not set(looks[:30]) & set(looks[30:])
        slopes = [np.polyfit(*np.log(line.get_xydata()).T, 1)[0] for line in lines]
        assert slopes == pytest.approx([1] * 30 + [1, 2])
        low, high = axes.get_ylim()
        assert all(low < y < high for line in lines[:31] for y in line.get_ydata())
    assert len(figure.legends[0].get_texts()) == 32
    assert len(COLOURS) * len(DASHES) < 30  # marks tell the last ones apart


@pytest.mark.parametrize("models", (1, 3))
def test_no_part_of_the_layers_picture_is_empty(laid_out, models):
    rng, names = np.random.default_rng(0), [f"m{i}" for i in range(models)]
    planes = {name: list(rng.normal(size=(3, 20, 2))) for name in names}
    measured = {name: {"cosines": [0.5, 0.6], "participation": [3, 2, 1]} for name in names}
    figure = laid_out(layer_figures.layer_geometry, planes, measured)
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == models + 2
    for row in (boxes[:models], boxes[models:]):
        assert row[0].x0 < 0.15 and row[-1].x1 > 0.95  # from side to side
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)
    assert all(axes.get_legend() for axes in figure.axes)


def test_forecasts_of_one_unit_share_an_axis(laid_out):
    def panel(unit, size):
        return unit, unit, size * np.arange(5), size * np.arange(3), {"this model": np.ones(3)}

    figure = laid_out(forecasts, [panel("m", 1), panel("kg", 9), panel("m", 100)], 4)
    limits = [axes.get_ylim() for axes in figure.axes[:3]]
    assert limits[0] == limits[2] != limits[1]
    assert [len(axes.get_lines()[0].get_xdata()) for axes in figure.axes[:3]] == [4] * 3


def test_the_page_of_words_has_a_key_of_its_own_colours():
    from train.analyze.contributions import in_html

    account = {"predicted": "a", "probability": 0.9, "bias": 0.0}
    words = [{"word": "for", "contribution": 1.0}, {"word": "no", "contribution": -1.0}]
    page = in_html([account | {"words": words}], "title")
    key, painted = page.split("<article>")
    colours = [re.findall(r"rgba\((\d+, ?\d+, ?\d+)", part) for part in (key, painted)]
    assert colours[0] == colours[1] and len(colours[0]) == 2
