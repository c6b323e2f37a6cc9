"""What the command prints and writes: lines, Table 1 beside the published one, JSON."""

import datetime
import json
import shlex
from pathlib import Path

import numpy as np

from minisum import files
from train.icl import sequences
from train.run.report import duration
from train.run.tables import aligned

PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
NAMES = {"full": "full", "free": "four scalars", "head": "four of one head", "gd": "two scalars"}
BASELINES = ("ConstRR", "AdaRR", "TunedRR")


def published(row, noise, layers=None):
    """The published number of a baseline, or of a form with so many layers; None for no number."""
    found = PUBLISHED.get(row)
    found = found[str(layers)] if layers and found else found
    return found[PUBLISHED["noise"].index(noise)] if found else None


def number(value):
    """0.0459, 0.242, 3e-10: about as many digits as 100,000 sequences decide."""
    if value and abs(value) < 5e-5:
        return f"{value:.0e}"
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"


def beside(loss, error, there):
    """Loss ± standard error, and the published number, if there is one, in brackets."""
    text = f"{number(loss)} ± {number(error)}" if error else number(loss)
    if there is None:
        return text
    return f"{text} ({there:.3f})" if there > 5e-4 or not there else f"{text} ({there:.0e})"


def finite(values):
    """Without the None of models that diverged."""
    return [value for value in values if value is not None] or [np.nan]


def best(cell):
    """The least loss of the seeds ± its standard error, and the published one in brackets."""
    pairs = zip(cell["losses"], cell["standard_errors"], strict=True)
    loss, error = min(((a, b) for a, b in pairs if a is not None), default=(np.nan, 0))
    return beside(loss, error, published(cell["form"], cell["noise"], cell["layers"]))


def spread(cell):
    """Mean ± standard deviation of the seeds; the largest error of any; how many diverged."""
    losses, gone = finite(cell["losses"]), cell["losses"].count(None)
    text = f"{number(np.mean(losses))} ± {number(np.std(losses))}; "
    text += f"{max(finite(cell['largest'])):.2g}"
    if gone == len(cell["losses"]):
        return "all diverged"
    return f"{text}; {gone} diverged" if gone else text


def agreement(cells):
    """How many of the published numbers are reproduced, in a sentence."""
    pairs = [(c, published(c["form"], c["noise"], c["layers"])) for c in cells]
    pairs = [(min(finite(c["losses"])), there) for c, there in pairs if there is not None]
    close = sum(abs(loss - there) <= max(0.1 * there, 0.003) for loss, there in pairs)
    return f"{close} of {len(pairs)} losses are within 10 % or 0.003 of the published ones."


def baseline(found, name):
    return beside(**found[name], there=published(name, found["noise"]))


def baselines_line(progress, found):
    text = ", ".join(f"{name} {baseline(found, name)}" for name in BASELINES)
    progress.say(f"{sequences.title(found['noise'])}: {text}")


def cell_line(progress, cell):
    skipped = f", {sum(cell['skipped_steps'])} steps overflowed" * any(cell["skipped_steps"])
    progress.say(
        f"{name_of(cell['layers'], cell['form'])}, {sequences.title(cell['noise'])}: best "
        f"{best(cell)}; all seeds and largest error: {spread(cell)}{skipped}; "
        f"{duration(cell['seconds'])}"
    )


def name_of(layers, form):
    return f"{layers} layer{'s' * (layers > 1)}, {NAMES[form]}"


def table(config, results, show):
    """A row for each depth and form, with show(cell) for each law."""
    laws = config.chosen("noise")
    return [
        [name_of(n, form), *(show(results[form, name, n]) for name in laws)]
        for n in config.depths()
        for form in config.chosen("forms")
    ]


def finish(progress, folder, config, results, known, arguments):
    """Print the table; write results.json and, as the pages want measurements, two tables."""
    rows = table(config, results, best)
    for row in ("one layer", *BASELINES):
        name = "1 layer, closed form" if row == "one layer" else row
        rows.append([name, *(baseline(found, row) for found in known.values())])
    titles = ["", *map(sequences.title, known)]
    progress.say()
    for line in aligned([titles, *rows]):
        progress.say(line)
    cells = list(results.values())
    progress.say(f"Best seed ± standard error, in brackets as published. {agreement(cells)}")
    made = {
        "command": [f"python -m train.icl {shlex.join(arguments)}".strip()],
        "date": datetime.date.today().isoformat(),
        "commit": None,
        "device": ", ".join(sorted({cell["device"] for cell in cells})),
        "versions": {k: v for cell in cells for k, v in cell["versions"].items()},
        "columns": titles,
    }
    what = (
        "Half the squared error minus the oracle's, a column per distribution of σ: "
        "best of the seeds ± standard error (published)."
    )
    again = (
        "The same as mean ± standard deviation of the seeds; then the largest error of one "
        "sequence."
    )
    tables = {"table1": {"what": what, "rows": rows, "notes": [agreement(cells)]}}
    tables["seeds"] = {"what": again, "rows": table(config, results, spread)}
    for name, content in tables.items():
        files.write_json(folder.path / f"{name}.json", made | content)
    content = made | {"baselines": known, "cells": cells}
    files.write_json(folder.path / "results.json", content)
