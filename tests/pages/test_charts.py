"""Charts: lines where the numbers are, names that do not stand on each other."""

import re

from tests.pages import charts

FIGURE = {
    "what": "Answers.",
    "chart": {
        "x": "length", "y": "right",
        "panels": {
            "a & b": {
                "level": 0.5, "from": 2,
                "families": {
                    "one": {"high": [[1, 1], [4, 0.9]], "beside": [[1, 1], [4, 0.89]]},
                    "two": {"low": [[1, 0.6], [4, 0.5]]},
                },
            }
        },
    },
}  # fmt: skip


def test_lines_names_and_legend():
    svg = charts.chart(FIGURE)
    assert "a &amp; b" in svg and svg.count("<polyline") == 3
    # x from 46 to 292, y = 1 at 30 and y = 0 at 228.
    assert 'points="46.0,30.0 292.0,49.8"' in svg
    texts = re.findall(r'y="([\d.]+)" text-anchor="start" fill="(#\w+)">(\w+)<', svg)
    named = {name: (float(y), fill) for y, fill, name in texts}
    assert named["one"][1] == named["two"][1] == "#222222"  # the legend
    assert named["beside"][0] - named["high"][0] == charts.LINE
    assert named["high"][1] == named["beside"][1] == charts.COLOURS[0]
    assert "low" not in named  # at the level, its name is only under the mouse
    assert "<title>low</title>" in svg


def test_ticks():
    assert charts.ticks([8, 16, 32], False) == [8, 16, 32]
    assert charts.ticks([*range(1, 97, 5), 96], False) == [16, 32, 48, 64, 80, 96]
    assert charts.ticks([2.0**k for k in range(3, 12)], True) == [8, 32, 128, 512, 2048]
    assert [charts.short(n) for n in (16, 2048, 8192, 2**22)] == ["16", "2k", "8k", "4M"]
