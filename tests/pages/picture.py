"""The README's picture: direct summation of five tokens, and attention's weights beside it.

Every square is a number computed here: blue is positive, orange negative, and a stronger colour is
a larger number. The picture has its own background, to be readable on light and dark pages.
"""

import numpy as np

WORDS = ("the", "cat", "sat", "on", "mats")
ROW, CELL = 38, 15  # between two tokens; the side of a square and the gap after it
TOP = 96  # of the first token's squares
MIDDLE = TOP + 2 * ROW + CELL / 2
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
.title { font-size: 16px; font-weight: 600; } .word, .cost { font-size: 14px; }
.middle { text-anchor: middle; } .end { text-anchor: end; }
.cell, .arrow { fill: none; } .arrow { stroke-width: 1.3; }
"""
COLOURS = """
text { fill: %(soft)s; } .title, .word, .cost { fill: %(ink)s; }
.panel { fill: %(paper)s; stroke: %(line)s; } .cell { stroke: %(line)s; }
.plus { fill: %(plus)s; } .minus { fill: %(minus)s; } .arrow { stroke: %(soft)s; }
"""
LIGHT = {"paper": "#ffffff", "line": "#d0d7de", "ink": "#1f2328", "soft": "#59636e",
         "plus": "#1f6feb", "minus": "#d9730d"}  # fmt: skip
DARK = {"paper": "#151b23", "line": "#3d444d", "ink": "#f0f6fc", "soft": "#b3bcc6",
        "plus": "#58a6ff", "minus": "#f0883e"}  # fmt: skip


def values(seed=4, n=5, d=5):
    """The arrays of one direct summation, and attention's weights for the same tokens."""
    rng = np.random.default_rng(seed)
    embedded = rng.integers(-4, 5, (n, d)) / 4
    placed = embedded * (rng.integers(-2, 3, (n, d)) / 4 + 1)
    contributions = np.maximum(placed @ (rng.integers(-4, 5, (d, d)) / 4).T, 0)
    scores = np.exp(embedded @ embedded.T)
    return embedded, placed, contributions, scores / scores.sum(axis=1, keepdims=True)


def cell(x, y, value, side=CELL - 2):
    """A square whose colour is the number's."""
    box = f'x="{x:g}" y="{y:g}" width="{side}" height="{side}" rx="2"'
    kind, strength = "plus" if value > 0 else "minus", min(1, 0.15 + 0.85 * abs(value))
    filling = f'<rect class="{kind}" opacity="{strength:.2f}" {box}/>' if value else ""
    return f'{filling}<rect class="cell" {box}/>'


def vector(x, y, numbers):
    return "".join(cell(x + CELL * i, y, number) for i, number in enumerate(numbers))


def text(x, y, words, kind=""):
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{words}</text>'


def arrow(x, y, to_x, to_y=None):
    to_y = y if to_y is None else to_y
    return f'<path class="arrow" d="M{x:g} {y:g} L{to_x:g} {to_y:g}" marker-end="url(#tip)"/>'


def summation(embedded, placed, contributions):
    """Five tokens that do not interact before the sum."""
    columns = (78, 200, 322)
    yield text(24, 38, "direct summation", "title")
    titles = ("embed", "× (position + 1)", "project, ReLU")
    for x, title in zip(columns, titles, strict=True):
        yield text(x + 37, 76, title, "middle")
    yield text(515, 76, "sum", "middle")
    for i, word in enumerate(WORDS):
        y = TOP + ROW * i
        yield text(24, y + 12, word, "word")
        for x, array in zip(columns, (embedded, placed, contributions), strict=True):
            yield vector(x, y, array[i] / np.abs(array).max())
        for x in columns[:2]:
            yield arrow(x + 82, y + 7, x + 112)
        yield arrow(405, y + 7, 462, MIDDLE + 4 * (i - 2))
    total = contributions.sum(axis=0)
    yield vector(478, MIDDLE - 7, total / total.max())
    yield text(24, 312, "n tokens of width d, each on its own, then one sum: O(n·d²)", "cost")
    for x, number, sign in ((470, 1, "positive"), (470, -1, "negative")):
        y = 226 + 10 * (1 - number)
        yield cell(x, y, number)
        yield text(x + CELL + 5, y + 11, sign)


def attention(weights):
    """Every token attends to every token: a row of weights for each query."""
    left, side = 660, 34
    yield '<path class="arrow" d="M590 30 V318" opacity="0.4"/>'
    yield text(614, 38, "attention", "title")
    for i, word in enumerate(WORDS):
        yield text(left - 10, TOP + side * i + 22, word, "word end")
        yield text(left + side * i + 16, 84, word, "word middle")
        for j, weight in enumerate(weights[i]):
            yield cell(left + side * j, TOP + side * i, weight, side - 2)
    yield text(614, 312, "n × n weights: O(n²·d) more", "cost")


def picture():
    embedded, placed, contributions, weights = values()
    body = "\n".join([*summation(embedded, placed, contributions), *attention(weights)])
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 340" width="860" role="img">
<title>Direct summation sums one vector per token; attention compares every pair</title>
<style>{STYLE}{COLOURS % LIGHT}
@media (prefers-color-scheme: dark) {{{COLOURS % DARK}}}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" \
orient="auto"><path d="M0 0 L8 4 L0 8" class="arrow"/></marker></defs>
<rect class="panel" x="1" y="1" width="858" height="338" rx="10"/>
{body}
</svg>
"""
