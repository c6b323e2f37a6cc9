"""What the command prints and writes: lines, Table 1 beside the published one, JSON."""

import datetime
import json
import shlex
from pathlib import Path

import numpy as np

from train.icl import sequences
from train.run.report import aligned, duration

PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
NAMES = {"full": "full", "free": "four scalars", "head": "four of one head", "gd": "two scalars"}
BASELINES = ("ConstRR", "AdaRR", "TunedRR")


def published(row, noise, layers=None):
    """The published number of a baseline, or of a form with so many layers; None for no number."""
    found = PUBLISHED.get(row)
    found = found[str(layers)] if layers and found else found
    return found[PUBLISHED["noise"].index(noise)] if found else None


def number(value):
    """.0459, .242, 1.17, 3e-10: no more digits than a test sequence or two can decide."""
    if value is None or not np.isfinite(value):
        return "-"
    if value and abs(value) < 5e-4:
        return f"{value:.0e}"
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"


def baselines_line(progress, found):
    beside = [f"{b} {pair(found[b]['loss'], published(b, found['noise']))}" for b in BASELINES]
    progress.say(f"{sequences.title(found['noise'])}: {', '.join(beside)}")


def cell_line(progress, cell):
    losses = cell["losses"]
    best = int(np.argmin(losses))
    there = published(cell["form"], cell["noise"], cell["layers"])
    skipped = f", {sum(cell['skipped_steps'])} steps overflowed" * any(cell["skipped_steps"])
    progress.say(
        f"{NAMES[cell['form']]}, {sequences.title(cell['noise'])}, layers {cell['layers']}: "
        f"best {pair(losses[best], there)} ± {number(cell['standard_errors'][best])}, "
        f"mean {number(np.mean(losses))} of {len(losses)} seeds, "
        f"largest error {max(cell['largest']):.3g}{skipped}, {duration(cell['seconds'])}"
    )


def pair(value, there):
    """Our number, and the published one in brackets."""
    return number(value) if there is None else f"{number(value)} ({there:.3g})"


def table(config, results, known):
    """(titles, rows) of the best seeds, the published numbers in brackets."""
    rows = []
    for layers in config.depths():
        for form in config.forms:
            row = [f"{layers} layer{'s' * (layers > 1)}, {NAMES[form]}"]
            for name in config.noise:
                best = min(results[form, name, layers]["losses"])
                row.append(pair(best, published(form, name, layers)))
            rows.append(row)
    exact = [number(known[name]["one layer"]["loss"]) for name in config.noise]
    rows.append(["1 layer, closed form", *exact])
    for baseline in BASELINES:
        losses = [
            (known[name][baseline]["loss"], published(baseline, name)) for name in config.noise
        ]
        rows.append([baseline, *(pair(*both) for both in losses)])
    return ["", *map(sequences.title, config.noise)], rows


def seeds_table(config, results):
    """(titles, rows): mean ± standard deviation over the seeds, and the largest error of any."""
    titles, rows = [""], []
    for name in config.noise:
        titles += [sequences.title(name), f"largest, {sequences.title(name)}"]
    for layers in config.depths():
        for form in config.forms:
            row = [f"{layers} layer{'s' * (layers > 1)}, {NAMES[form]}"]
            for name in config.noise:
                cell = results[form, name, layers]
                spread = f"{number(np.mean(cell['losses']))} ± {number(np.std(cell['losses']))}"
                row += [spread, f"{max(cell['largest']):.2g}"]
            rows.append(row)
    return titles, rows


def finish(progress, folder, config, results, known, arguments):
    """Print the table; write results.json and the two tables as the pages want measurements."""
    titles, rows = table(config, results, known)
    progress.say()
    for line in aligned([titles, *rows]):
        progress.say(line)
    progress.say("best seed of each cell, the published number in brackets")
    made = {
        "command": [f"python -m train.icl {shlex.join(arguments)}".strip()],
        "date": datetime.date.today().isoformat(),
        "commit": None,
        "device": ", ".join(sorted({cell["device"] for cell in results.values()})),
        "versions": {k: v for cell in results.values() for k, v in cell["versions"].items()},
    }
    best = {"what": "Half the squared error minus the oracle's: the best of the seeds, and in "
            "brackets the published number."}  # fmt: skip
    seeds = {"what": "The same: mean ± standard deviation of the seeds, and the largest error of a "
             "single sequence."}  # fmt: skip
    titles_seeds, rows_seeds = seeds_table(config, results)
    write = folder.write_json
    write(folder.path / "table.json", best | made | {"columns": titles, "rows": rows})
    more = {"columns": titles_seeds, "rows": rows_seeds}
    write(folder.path / "seeds.json", seeds | made | more)
    cells = list(results.values())
    write(folder.path / "results.json", made | {"baselines": known, "cells": cells})
