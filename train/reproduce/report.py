"""The tables of a reproduction: published numbers, ours by protocol, and how fast, in three forms.

The speed is the time that attention takes to train an epoch over the time that the mixer takes,
measured on the same device with as many runs at a time, batches and all; a median over the seeds.
"""

import statistics
from collections import defaultdict

from minisum import files
from train.reproduce.quirks import HONEST, PUBLISHED, TASKS
from train.reproduce.sets import SETS
from train.run.report import csv_of
from train.run.tables import aligned

NOTHING = "-"
OWN_TOKENS = "byte pairs of its own instead of GPT-2's: perplexities not comparable, bits are"


def write(folder, settings, cells, not_run, failed):
    """Write reproduce.json, .csv and .md into a RunFolder; return what to print.

    cells: contents of the finished ones. not_run: set -> why; failed: cell -> why.
    """
    cells = sorted(cells, key=lambda cell: [*SETS].index(cell["set"]))
    found = {cell["protocol"] for cell in cells} or {PUBLISHED, HONEST}
    # The published one first, its variants next, the honest one last.
    protocols = sorted(found, key=lambda name: (name == HONEST, name != PUBLISHED, name))
    rows = [row for name in SETS for row in rows_of(name, cells, protocols)]
    notes, quirks = notes_of(settings, cells), quirks_of(cells)
    content = {
        "settings": settings, "protocols": protocols, "rows": rows, "notes": notes,
        "not_run": not_run, "failed": failed, "quirks": quirks, "cells": cells,
    }  # fmt: skip
    files.write_json(folder.path / "reproduce.json", content)
    lines = table(rows, protocols)
    remarks = [f"{name}: {note}" for name, note in notes.items()]
    remarks += [f"{name}: not run ({why})" for name, why in not_run.items()]
    remarks += [f"{name}: failed ({why})" for name, why in failed.items()]
    page = markdown(lines, remarks, quirks, settings)
    for name, text in (("reproduce.csv", csv_of(rows)), ("reproduce.md", page)):
        files.write_text(folder.path / name, text)
    printed = aligned(lines, left=3) if rows else ["no run is finished yet"]
    return "\n".join(["", *printed, "", *remarks])


def rows_of(name, cells, protocols):
    """A row for each mixer and metric of a set that has a cell: a dict, None where nothing is."""
    entry, task = SETS[name], TASKS[SETS[name].task]
    runs = defaultdict(list)
    for cell in cells:
        if cell["set"] == name:
            runs[cell["mixer"], cell["protocol"]].append(cell)
    rows = []
    for metric, title in task.metrics.items():
        for mixer in task.mixers:
            row = {"set": name, "mixer": mixer, "metric": title}
            row["published"] = entry.numbers.get(mixer, {}).get(metric)
            sizes = {c["parameters"] for p in protocols for c in runs[mixer, p]}
            row["parameters"] = " or ".join(f"{size:,}" for size in sorted(sizes))
            for protocol in protocols:
                mine, attention = runs[mixer, protocol], runs["attention", protocol]
                values = [cell["metrics"][metric] for cell in mine]
                trained = mixer not in task.untrained
                row[f"{protocol}_mean"] = statistics.fmean(values) if values else None
                row[f"{protocol}_sd"] = statistics.stdev(values) if len(values) > 1 else None
                row[f"{protocol}_seeds"] = len(values)
                row[f"{protocol}_speed"] = speed(mine, attention) if trained else None
            claims = mixer in entry.numbers and mixer != "attention"
            row["published_speed_claim"] = entry.speed if claims else None
            if any(runs[mixer, protocol] for protocol in protocols):
                rows.append(row)
    return rows


def speed(runs, attention):
    """Attention's seconds an epoch over those of `runs`, None without a pair to compare.

    Both read the same tokens in an epoch, so it is the ratio of the tokens per second. Where some
    pairs had the machine to themselves and others shared it, only the former count.
    """
    ratios = {}
    for run in runs:
        for base in attention:
            if all(run[name] == base[name] for name in ("seed", "device", "at_once")):
                ratio = run["tokens_per_second"] / base["tokens_per_second"]
                ratios.setdefault(run["at_once"], []).append(ratio)
    return statistics.median(ratios[min(ratios)]) if ratios else None


def notes_of(settings, cells):
    """set -> what to know before its numbers are compared."""
    notes = {}
    for name in dict.fromkeys(cell["set"] for cell in cells):
        mine = [cell for cell in cells if cell["set"] == name]
        found = [SETS[name].note] if SETS[name].note else []
        if SETS[name].task == "causal" and settings["lm_tokenizer"] == "bpe":
            found.append(OWN_TOKENS)
        if rows := {cell.get("train_examples") for cell in mine} - {None}:
            found.append(f"{' or '.join(f'{count:,}' for count in sorted(rows))} training rows")
        here, there = {cell.get("classes") for cell in mine}, SETS[name].classes
        if there and here != {there}:
            counts = " or ".join(map(str, here))
            found.append(f"{counts} classes here, {there} in the published run: not comparable")
        if common := {cell.get("test_texts_in_train") for cell in mine} - {None, 0}:
            counts = " or ".join(f"{count:,}" for count in sorted(common))
            found.append(f"{counts} of the test texts are training texts too")
        data = {(cell["protocol"], cell["seed"], cell["data_sha256"]) for cell in mine}
        if len(data) > len({(protocol, seed) for protocol, seed, _ in data}):
            found.append("THE DATA CHANGED BETWEEN RUNS: mixers are not comparable")
        if all(cell["at_once"] > 1 for cell in mine):
            found.append("timed while other runs shared the machine")
        if found:
            notes[name] = "; ".join(found)
    return notes


def quirks_of(cells):
    """The quirks of the tasks that have cells: dicts with the flags that stand for each."""
    return [
        {"task": task, "quirk": q.name, "flags": q.on, "without": q.off, "about": q.about}
        for task in dict.fromkeys(SETS[cell["set"]].task for cell in cells)
        for q in TASKS[task].quirks
    ]


def table(rows, protocols):
    """Lines of cells as text, the titles first."""
    ours = [f"ours, {protocol}" for protocol in protocols]
    speeds = ["speed, claimed", *(f"speed, {protocol}" for protocol in protocols)]
    lines = [["set", "mixer", "metric", "in print", *ours, "parameters", *speeds]]
    seen = set()  # a speed belongs to all metrics of a mixer and is printed beside the first
    for row in rows:
        speeds = [row["published_speed_claim"], *(row[f"{p}_speed"] for p in protocols)]
        if (row["set"], row["mixer"]) in seen:
            speeds = [None] * len(speeds)
        seen.add((row["set"], row["mixer"]))
        lines.append(
            [row["set"], row["mixer"], row["metric"], number(row["published"])]
            + [spread(row, protocol) for protocol in protocols]
            + [row["parameters"], *(times(ratio) for ratio in speeds)]
        )
    return lines


def spread(row, protocol):
    """mean ± standard deviation (seeds)"""
    mean, deviation, seeds = (row[f"{protocol}_{what}"] for what in ("mean", "sd", "seeds"))
    if mean is None:
        return NOTHING
    return number(mean) + (f" ± {number(deviation)}" if seeds > 1 else "") + f" ({seeds})"


def number(value):
    if value is None:
        return NOTHING
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4f}"


def times(ratio):
    if ratio is None:
        return NOTHING
    return f"{ratio}x" if isinstance(ratio, str) else f"{ratio:.2f}x"


def markdown(lines, remarks, quirks, settings):
    """The table, what to know about it, and the quirks, as a page."""
    text = ["# The published tables, run again", ""]
    if settings["quick"]:
        text += ["Tiny runs (`--quick`): these numbers mean nothing.", ""]
    text += bars(lines[0], lines[1:])
    text += [
        "", "Mean ± standard deviation (seeds). Speed: attention's training seconds over this "
        "mixer's, an epoch of each, on the same device.", "",
    ]  # fmt: skip
    text += [f"- {remark}" for remark in remarks] + [""]
    if quirks:
        flags = [
            [f"`{q[key]}`" if q[key] else NOTHING for key in ("flags", "without")] for q in quirks
        ]
        told = [[q["task"], q["quirk"], *f, q["about"]] for q, f in zip(quirks, flags, strict=True)]
        text += bars(["task", "quirk", "flags", "taken back by", "what it is"], told)
    return "\n".join(text).rstrip() + "\n"


def bars(titles, lines):
    return ["| " + " | ".join(line) + " |" for line in [titles, ["---"] * len(titles), *lines]]
