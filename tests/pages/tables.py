"""The tables of the pages, made from the measurements beside them.

A measurement is a JSON file in a folder `figures` beside its page:

    what       one sentence
    command    the command lines that make it
    date, device, versions, and commit: the one measured or, where that was not noted, the first
               that records the figures
    columns    titles
    rows       a list of cells a row: text, a number, {"mean", "sd"}, or a list with a value for
               each seed, which is shown as mean ± standard deviation
    digits     title -> decimals of the means of that column's lists
    best       optional: title -> "max" or "min", the number to print in bold
    folded     optional: what a reader opens to see the rows, where a picture shows them already
    notes      optional: sentences below the table

A page shows it between two markers:

    <!-- table: figures/NAME.json -->
    <!-- end -->

In a text, {PATH#ROW#COLUMN} stands for a cell of another measurement. A file that has only such
cells is a summary: `summary`, `columns` and `rows` are all it needs.
"""

import json
import re
import statistics
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("minisum", "train", "data", "tests")
FIELDS = ("what", "command", "date", "commit", "device", "versions", "columns", "rows")
TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
REFERENCE = re.compile(r"\{([^#{}]+)#([^#{}]+)#([^#{}]+)\}")


def pages():
    """Every README of the project."""
    return [ROOT / "README.md", *inside("README.md")]


def figures():
    """Every measurement, whether a page shows it or not."""
    return inside("figures/*.json")


def inside(pattern):
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob(pattern))]


def read(path):
    """A measurement, with its numbers as they are written: 1.30 is not 1.3."""
    return json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)


def filled(page, text):
    """The text of a page with its tables made anew."""
    return TABLE.sub(lambda m: m[1] + markdown(page.parent / m[2]) + m[3], text)


def markdown(path):
    """What a page shows of a measurement: the table, where it comes from, notes."""
    figure = read(path)
    titles = figure["columns"]
    rows = [[shown(figure, *cell, path.parent) for cell in zip(titles, row, strict=True)]
            for row in figure["rows"]]  # fmt: skip
    embolden(figure, rows)
    lines = ["| " + " | ".join(row) + " |" for row in [titles, *rows]]
    lines.insert(1, "|---" * len(titles) + "|")
    if folded := figure.get("folded"):
        lines = [f"<details><summary>{folded}</summary>", "", *lines, "", "</details>"]
    if "summary" not in figure:
        lines = [figure["what"], "", *lines, "", origin(figure), ""]
        lines += ["```sh", *figure["command"], "```"]
    if notes := figure.get("notes"):
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def shown(figure, title, cell, folder):
    """A cell as text."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return REFERENCE.sub(lambda m: referred(folder / m[1], m[2], m[3]), cell)
    if isinstance(cell, list):
        unit = Decimal(10) ** -figure["digits"][title]
        spread = [statistics.mean(cell), statistics.stdev(cell)] if len(cell) > 1 else cell
        spread = [value.quantize(unit, ROUND_HALF_UP) for value in spread]
        return " ± ".join(f"{value:,}" for value in spread)
    if isinstance(cell, dict):
        return f"{cell['mean']:,} ± {cell['sd']:,}"
    return f"{cell:,}"


def referred(path, name, title):
    """The cell of another measurement as text."""
    figure = read(path)
    row = next(row for row in figure["rows"] if row[0] == name)
    return shown(figure, title, row[figure["columns"].index(title)], path.parent)


def embolden(figure, rows):
    """Print the best number of a column in bold, and all that are printed the same."""
    for title, best in figure.get("best", {}).items():
        column = figure["columns"].index(title)
        filled_in = [row for row in rows if row[column]]
        winner = {"max": max, "min": min}[best](amount(row[column]) for row in filled_in)
        for row in filled_in:
            if amount(row[column]) == winner:
                row[column] = f"**{row[column]}**"


def amount(cell):
    """The number that a cell shows, or the mean before its ±."""
    return Decimal(cell.partition(" ± ")[0].replace(",", ""))


def origin(figure):
    versions = ", ".join(f"{name} {version}" for name, version in figure["versions"].items())
    commit = f"commit {figure['commit']}" if figure["commit"] else "commit not noted"
    return "; ".join(filter(None, (figure["date"], figure["device"], versions, commit))) + ":"
