"""Tables that fit the terminal: 80 columns where it does not say how wide it is."""

import shutil

GAP = "  "


def terminal_width():
    return shutil.get_terminal_size((80, 24)).columns


def in_two_lines(title):
    """("val", "bits per byte") of "val bits per byte", ("", "time") of "time"."""
    first, _, rest = title.partition(" ")
    return (first, rest) if rest else ("", title)


def fitted(cells, measured, reported):
    """title -> width of the columns that fit, with room for a mark after the last.

    cells: title -> a cell of it. Of the titles in `measured`, splits' metrics, those that are not
    losses and stand last in `reported`, or not at all, are left out first, and one stays.
    """
    known = [name.replace("_", " ") for name in reported]
    metrics = {title: title.partition(" ")[2] for title in measured if not title.endswith("loss")}
    rank = {t: known.index(m) if m in known else len(known) for t, m in metrics.items()}
    sizes = cells | {"tokens/s": "1,234,567"}
    widths = {t: max(5, len(cell), *map(len, in_two_lines(t))) for t, cell in sizes.items()}
    for title in sorted(rank, key=rank.get, reverse=True)[:-1]:
        if sum(widths.values()) + len(GAP) * len(widths) > terminal_width():
            del widths[title]
    return widths


def titles_of(widths):
    """The two lines of titles above columns of these widths."""
    parts = zip(*(in_two_lines(title) for title in widths), strict=True)
    return [
        GAP.join(p.rjust(w) for p, w in zip(line, widths.values(), strict=True)) for line in parts
    ]


def aligned(lines, left=1):
    """Lines of text from lists of cells: `left` columns flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for line in lines:
        sized = list(zip(line, widths, strict=True))
        cells = [c.ljust(w) for c, w in sized[:left]] + [c.rjust(w) for c, w in sized[left:]]
        text.append(GAP.join(cells).rstrip())
    return text
