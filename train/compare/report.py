"""What a comparison prints and writes: lines, a table, CSV, JSON, and figures."""

import numpy as np

import minisum
from minisum import files
from train.run import figures
from train.run.report import csv_of, duration, readable

LINES = ("--", ":", "-.", "-")


def header(report, config, task, settings, baselines):
    report.say(f"minisum {minisum.__version__}, comparison on {config.task}")
    used = {name: value for name, value in settings.items() if value is not None}
    for name, value in used.items():
        report.say(f"  {name.replace('_', ' '):<18} {str(value)[:24]}")
    report.say(f"  {'mixers':<18} {', '.join(config.names())}")
    report.say(f"  {'test metric':<18} {task.metric}, once, after the last step")
    for name, value in baselines.items():
        report.say(f"  {name:<18} {value:.4f}")
    report.say()


def cell_line(report, result, metric):
    value = result[metric]
    diverged = f"diverged at step {result['diverged_at']}"
    score = diverged if value is None else f"{metric} {value:.4f}"
    report.say(
        f"{result['mixer']}, seed {result['seed']}: {score}, "
        f"{result['tokens_per_second']:,.0f} tokens/s, {duration(result['seconds'])}"
    )


def scaling_line(report, row):
    times = ", ".join(f"{r['n']:,}: {1000 * r['seconds']:.3g} ms" for r in row["rows"])
    report.say(f"{row['mixer']}, forward and backward of one layer: {times}")


def summarise(results, metric):
    """One row a mixer: its runs side by side. Diverged runs count in no mean."""
    rows = []
    for mixer in dict.fromkeys(result["mixer"] for result in results):
        runs = [result for result in results if result["mixer"] == mixer]
        values = [run[metric] for run in runs if run[metric] is not None]
        losses = [run["train_loss"] for run in runs if run["train_loss"] is not None]
        rows.append(
            {
                "mixer": mixer,
                "mean": float(np.mean(values)) if values else None,
                "lowest": min(values, default=None),
                "highest": max(values, default=None),
                "seeds": len(runs),
                "diverged": len(runs) - len(values),
                "train_loss": float(np.mean(losses)) if losses else None,
                "parameters": runs[0]["parameters"],
                "state_numbers": runs[0]["state_numbers"],
                "tokens_per_second": float(np.median([r["tokens_per_second"] for r in runs])),
                "step_memory_bytes": max(run["step_memory_bytes"] for run in runs),
            }
        )
    return rows


def finish(report, folder, task, settings, results, baselines, scaling):
    """Print the table and write comparison.csv, .json, .png and scaling.png."""
    rows = summarise(results, task.metric)
    rows.sort(key=lambda row: place(row, task))
    table(report, rows, task, baselines)
    scaling_table(report, scaling)
    content = {
        "settings": settings, "metric": task.metric, "mixers": rows, "baselines": baselines,
        "cells": results, "scaling": scaling,
    }  # fmt: skip
    files.write_json(folder.path / "comparison.json", content)
    others = [{"mixer": f"({name})", "mean": value} for name, value in baselines.items()]
    text = csv_of(rows + others)
    files.write_text(folder.path / "comparison.csv", text)
    draw_comparison(folder.path / "comparison.png", rows, results, task, baselines)
    if scaling:
        draw_scaling(folder.path / "scaling.png", scaling)
    report.say(f"files in {folder}")


def place(row, task):
    """The best first, what diverged last."""
    if row["mean"] is None:
        return np.inf
    return -row["mean"] if task.higher_is_better else row["mean"]


def table(report, rows, task, baselines):
    titles = ("mixer", task.metric, "lowest", "highest", "parameters", "state", "tokens/s", "MiB")
    line = "{:<20}{:>14}{:>9}{:>9}{:>12}{:>10}{:>12}{:>8}".format
    report.say()
    report.say(line(*titles))
    for row in rows:
        scores = ["-" if row[k] is None else f"{row[k]:.4f}" for k in ("mean", "lowest", "highest")]
        costs = [readable(row[k]) for k in ("parameters", "state_numbers", "tokens_per_second")]
        memory = f"{row['step_memory_bytes'] / 2**20:.1f}"
        note = f"  {row['diverged']} of {row['seeds']} diverged" if row["diverged"] else ""
        report.say(line(row["mixer"], *scores, *costs, memory) + note)
    for name, value in baselines.items():
        report.say(f"{name:<20}{value:>14.4f}")
    report.say("state: numbers kept from token to token by the causal form, all layers together")
    report.say("MiB: what a forward and backward pass takes beside parameters and optimiser")


def scaling_table(report, scaling):
    if not scaling:
        return
    report.say()
    report.say("time and memory of one layer, forward and backward, batch 1; slope 1 is linear")
    for row in scaling:
        last = row["rows"][-1]
        slope = "-" if row["slope"] is None else f"{row['slope']:.2f}"
        report.say(
            f"{row['mixer']:<20}n {last['n']:>7,}{1000 * last['seconds']:>12.1f} ms"
            f"{last['memory_bytes'] / 2**20:>10.1f} MiB   slope {slope}"
        )


def draw_comparison(path, rows, results, task, baselines):
    """Score, speed and memory of every mixer; a dot for each seed, a line for each baseline."""
    figure = figures.new_figure(13, 1.6 + 0.34 * max(len(rows), 5))
    if figure is None:
        return
    scores, speeds, memory = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    names = [row["mixer"] for row in rows][::-1]
    places = np.arange(len(names))
    means = [np.nan if row["mean"] is None else row["mean"] for row in rows][::-1]
    scores.barh(places, means, height=0.6, color="lightsteelblue")
    for result in results:
        if result[task.metric] is not None:
            place = names.index(result["mixer"])
            scores.plot(result[task.metric], place, "o", color="navy", markersize=4)
    for number, (name, value) in enumerate(baselines.items()):
        scores.axvline(
            value, label=f"{name} {value:.3g}", linestyle=LINES[number % 4], color=f"C{number + 1}"
        )
    scores.set_yticks(places, names)
    scores.set_xlabel(f"test {task.metric.replace('_', ' ')}, a dot a seed")
    if task.higher_is_better:
        scores.set_xlim(0, 1.02)
    elif min(baselines.values()) > 0:
        scores.set_xscale("log")
    figure.legend(loc="outside upper left", fontsize=8, ncols=4)
    speeds.barh(
        places, [row["tokens_per_second"] / 1000 for row in rows][::-1], height=0.6, color="C0"
    )
    speeds.set_xlabel("1,000 tokens per second")
    memory.barh(
        places, [row["step_memory_bytes"] / 2**20 for row in rows][::-1], height=0.6, color="C0"
    )
    memory.set_xlabel("MiB a step")
    for axes in (scores, speeds, memory):
        axes.grid(axis="x", alpha=0.3)
    figures.save(figure, path)


def draw_scaling(path, scaling):
    figure = figures.new_figure(12, 5)
    if figure is None:
        return
    for axes, key, label, unit in zip(
        figure.subplots(1, 2),
        ("seconds", "memory_bytes"),
        ("milliseconds", "MiB"),
        (1e-3, 2**20),
        strict=True,
    ):
        for number, row in enumerate(scaling):
            ns = [r["n"] for r in row["rows"]]
            values = [r[key] / unit for r in row["rows"]]
            marker = "osv^D*"[number // 10 % 6]
            axes.loglog(ns, values, marker=marker, markersize=4, label=row["mixer"])
        lengths = sorted({r["n"] for row in scaling for r in row["rows"]})
        axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
        axes.minorticks_off()
        axes.set_xlabel("tokens n")
        axes.set_ylabel(f"{label}, forward and backward of one layer")
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figures.save(figure, path)
