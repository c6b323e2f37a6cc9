"""Charts of the pages, made from the measurements beside them: NAME.svg from NAME.json's "chart".

    x, y       titles of the axes
    log        whether x is logarithmic
    panels     title -> {"level": a dotted line, "from": a grey one, and
               "families": family -> line -> points [x, y]}

A family has one colour, for many lines cannot each have their own. Lines that end well above the
level are named at their ends, the highest; every line tells its name under the mouse.
"""

import html
import math

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 270, 46, 148, 30, 42  # of a panel and its margins
LINE = 13  # pixels from one name to the next
CLEAR = 0.08  # above the level
MOST = 16  # names beside a panel
# Okabe and Ito's colours, which the colour-blind can tell apart, and dashes that say the same.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
DASHES = ("", "7 3", "2 2", "9 3 2 3", "4 2", "12 3", "")


def chart(figure):
    """The SVG of a measurement."""
    panels = figure["chart"]["panels"]
    families = list(dict.fromkeys(name for panel in panels.values() for name in panel["families"]))
    width, legend = WIDTH * len(panels), 20 * math.ceil(len(families) / (2 * len(panels))) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + legend}" '
        f'width="{width}" font-family="sans-serif" font-size="11">',
        f"<title>{html.escape(figure['what'])}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for number, family in enumerate(families):
        row, column = divmod(number, 2 * len(panels))
        x, y = LEFT + column * WIDTH / 2, 18 + 20 * row
        parts.append(f'<path d="M{x} {y - 4} h26" {style(number)} stroke-width="2"/>')
        parts.append(text(x + 32, y, family))
    for place, (title, content) in enumerate(panels.items()):
        parts.append(f'<g transform="translate({place * WIDTH} {legend})">')
        parts += [*panel(figure["chart"], title, content, families), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


def panel(chart, title, content, families):
    """The elements of one panel, with y from 0 to 1."""
    lines = [
        (families.index(family), name, [[float(value) for value in point] for point in points])
        for family, named in content["families"].items()
        for name, points in named.items()
    ]
    seen = sorted({x for _, _, points in lines for x, _ in points})
    scale = math.log2 if chart.get("log") else float
    low, high = scale(seen[0]), scale(seen[-1])

    def x(value):
        return LEFT + (WIDTH - LEFT - RIGHT) * (scale(value) - low) / ((high - low) or 1)

    def y(value):
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * float(value)

    yield text((LEFT + WIDTH - RIGHT) / 2, TOP - 10, title, "middle")
    for value in (0, 0.25, 0.5, 0.75, 1):
        yield rule(LEFT, y(value), WIDTH - RIGHT, y(value), 'stroke="#dddddd"')
        yield text(LEFT - 6, y(value) + 4, f"{value:g}", "end")
    for value in ticks(seen, chart.get("log")):
        yield text(x(value), HEIGHT - BOTTOM + 16, short(value), "middle")
    yield text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, chart["x"], "middle")
    label = text(-(HEIGHT - BOTTOM + TOP) / 2, 12, chart["y"], "middle")
    yield f'<g transform="rotate(-90)">{label}</g>'
    if start := content.get("from"):
        yield rule(x(start), y(0), x(start), y(1), 'stroke="#888888"')
    for number, name, points in lines:
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        marks = "".join(
            f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.2" fill="{colour(number)}"/>'
            for a, b in points
            if len(points) < 8
        )
        yield f"<g><title>{html.escape(name)}</title>"
        yield f'<polyline points="{path}" {style(number)} stroke-width="1.4"/>{marks}</g>'
    level = float(content["level"])
    yield rule(LEFT, y(level), WIDTH - RIGHT, y(level), 'stroke="#000000" stroke-dasharray="1 3"')
    named = [line for line in lines if line[2][-1][1] > level + CLEAR]
    for at, (number, name, points) in apart(named, y):
        end = x(points[-1][0]), y(points[-1][1])
        yield rule(end[0] + 3, end[1], WIDTH - RIGHT + 8, at, 'stroke="#bbbbbb" stroke-width=".6"')
        yield text(WIDTH - RIGHT + 10, at + 4, name, fill=colour(number))


def apart(lines, y):
    """(place, line) of the names beside the ends of lines, from above, none over another."""
    lines = sorted(lines, key=lambda line: -line[2][-1][1])[:MOST]
    places = [y(points[-1][1]) for *_, points in lines]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + LINE)
    beyond = max(0, places[-1] - (HEIGHT - 4)) if places else 0
    for i in reversed(range(len(places))):  # up again from below the picture
        if beyond:
            places[i] = min(places[i], HEIGHT - 4 - LINE * (len(places) - 1 - i))
    return zip(places, lines, strict=True)


def ticks(seen, log):
    """What was measured, or powers of two, or multiples of one, six at most."""
    if len(seen) <= 6:
        return seen
    first, last = math.ceil(math.log2(seen[0])), math.floor(math.log2(seen[-1]))
    if log:
        return [2.0**power for power in range(first, last + 1, max(1, (last - first) // 4))]
    step = 2 ** math.ceil(math.log2(seen[-1] / 6))
    return [*range(step, int(seen[-1]) + 1, step)]


def short(value):
    """16, 2k, 4M"""
    for unit, name in ((2**20, "M"), (2**10, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def colour(number):
    return COLOURS[number % len(COLOURS)]


def style(number):
    dashes = DASHES[number % len(DASHES)]
    return f'fill="none" stroke="{colour(number)}" stroke-dasharray="{dashes}"'


def rule(x1, y1, x2, y2, look):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {look}/>'


def text(x, y, written, anchor="start", fill="#222222"):
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"'
    return f"<text {place}>{html.escape(str(written))}</text>"
