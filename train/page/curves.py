"""Learning curves as SVG, without a library: for pages."""

import html

from minisum.files import read_lines

WIDTH, HEIGHT, LEFT, BOTTOM = 380, 220, 52, 34
COLOURS = ("rgb(0,114,178)", "rgb(213,94,0)")  # told apart by the colour-blind
DASHES = ("", "6 3")


def learning_curves(path):
    """A section of panels from a metrics.jsonl: the losses, and each other validation metric."""
    if not path.exists():
        return ""
    measured = read_lines(path)
    records = [{n: v for n, v in record.items() if v is not None} for record in measured]
    if not records:
        return ""
    names = [n for n in records[0] if n.partition("_")[0] in ("train", "val", "test")]
    losses = [name for name in names if name.endswith("_loss")]
    panels = [losses, *([name] for name in names if name not in losses)]
    drawn = "".join(panel(records, group) for group in panels if group)
    return f"<h2>Learning curves</h2>\n{drawn}" if drawn else ""


def panel(records, names):
    """An SVG of one or two metrics against the epoch, with axes and a legend."""
    epochs = [record["epoch"] for record in records]
    values = [record[name] for record in records for name in names if name in record]
    low, high = min(values), max(values)
    high = high if high > low else low + 1

    def x(epoch):
        span = max(1, epochs[-1] - epochs[0])
        return LEFT + (WIDTH - LEFT - 10) * (epoch - epochs[0]) / span

    def y(value):
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 28) * (value - low) / (high - low)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">']
    for value in (low, (low + high) / 2, high):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
                     'stroke="currentColor" opacity=".2"/>')  # fmt: skip
        parts.append(text(LEFT - 6, y(value) + 4, f"{value:.3g}", "end"))
    for epoch in sorted({epochs[0], epochs[-1]}):
        parts.append(text(x(epoch), HEIGHT - BOTTOM + 16, epoch, "middle"))
    parts.append(text((LEFT + WIDTH) / 2, HEIGHT - 4, "epoch", "middle"))
    for name, colour, dash, place in zip(names, COLOURS, DASHES, (0, 1), strict=False):
        points = " ".join(f"{x(r['epoch']):.1f},{y(r[name]):.1f}" for r in records if name in r)
        line = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{points}" fill="none" {line}/>')
        start = LEFT + 150 * place
        parts.append(f'<line x1="{start}" x2="{start + 22}" y1="12" y2="12" {line}/>')
        parts.append(text(start + 28, 16, name.replace("_", " "), "start"))
    return "\n".join([*parts, "</svg>"])


def text(x, y, written, anchor):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(str(written))}</text>'
    )
