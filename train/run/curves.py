"""Learning curves as SVG, without a library: beside every result, and in pages."""

import html

from minisum.files import read_lines

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 380, 230, 72, 28, 44, 24
# Told apart by the colour-blind, and in grey by their dashes.
LINES = {
    "train_loss": 'stroke="rgb(0,114,178)" stroke-width="2"',
    "loss": 'stroke="rgb(86,180,233)" stroke-width="1"',
    "other": 'stroke="rgb(213,94,0)" stroke-width="2" stroke-dasharray="6 3"',
}
LABELS = {"loss": "loss of a step", "step": "training step"}
SPLITS = ("train", "val", "test")


def learning_curves(path):
    """An SVG of the curves in a metrics.jsonl; of none if there is no such file."""
    return draw_curves(read_lines(path) if path.exists() else [])


def draw_curves(records):
    """An SVG of panels: the losses, and each other metric, against the step or the epoch.

    records: dicts in the order of time; None, for what is not finite, is left out.
    """
    records = [{n: v for n, v in record.items() if v is not None} for record in records]
    found = dict.fromkeys(name for record in records for name in record)
    names = [name for name in found if name == "loss" or name.partition("_")[0] in SPLITS]
    losses = [name for name in names if name.endswith("loss")]
    panels = [losses, *([name] for name in names if name not in losses)] if losses else []
    width = max(1, len(panels)) * (WIDTH + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
        'font-family="sans-serif" font-size="12" style="background: Canvas; color: CanvasText">'
    ]
    for place, group in enumerate(panels):
        parts.append(f'<svg x="{place * (WIDTH + GAP)}" width="{WIDTH}" height="{HEIGHT}">')
        parts += [*panel(records, group), "</svg>"]
    return "\n".join([*parts, "</svg>\n"])


def panel(records, names):
    """The elements of one panel: metrics against the time of all records, axes and a legend."""
    key = "step" if "step" in records[0] else "epoch"
    drawn = [record for record in records if any(name in record for name in names)]
    first, last = records[0][key], records[-1][key]
    values = [record[name] for record in drawn for name in names if name in record]
    low, high = min(values), max(values)

    def x(place):
        return LEFT + (WIDTH - LEFT - 12) * (place - first) / max(1, last - first)

    def y(value):
        part = (value - low) / (high - low) if high > low else 0.5  # a constant: in the middle
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * part

    for value in sorted({low, (low + high) / 2, high}):
        height = f'y1="{y(value):.1f}" y2="{y(value):.1f}"'
        yield f'<line x1="{LEFT}" x2="{WIDTH - 12}" {height} stroke="currentColor" opacity=".2"/>'
        yield text(LEFT - 6, y(value) + 4, f"{value:.3g}", "end")
    for place in sorted({first, last}):
        yield text(x(place), HEIGHT - BOTTOM + 16, f"{place:,}", "middle")
    yield text((LEFT + WIDTH) / 2, HEIGHT - 8, LABELS.get(key, key), "middle")
    what = "loss" if len(names) > 1 else names[0].partition("_")[2].replace("_", " ") or names[0]
    turned = f'transform="translate(14 {(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)"'
    yield f"<g {turned}>{text(0, 0, what, 'middle')}</g>"
    for number, name in enumerate(names):
        style = LINES.get(name, LINES["other"])
        places = [(x(r[key]), y(r[name])) for r in drawn if name in r]
        if len(places) == 1:  # one epoch: a short dash
            places = [(places[0][0] + shift, places[0][1]) for shift in (-3, 3)]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        yield f'<polyline points="{points}" fill="none" {style}/>'
        start = LEFT + 104 * number
        yield f'<line x1="{start}" x2="{start + 20}" y1="12" y2="12" {style}/>'
        yield text(start + 25, 16, LABELS.get(name, name.replace("_", " ")), "start")


def text(x, y, written, anchor):
    written = html.escape(str(written))
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="currentColor">{written}</text>'
