"""What a comparison prints and writes: lines, a table, CSV, JSON, and figures."""

import numpy as np

import minisum
from minisum import files
from train.compare.drawing import draw_comparison, draw_scaling
from train.run.report import csv_of, duration, readable
from train.run.tables import aligned


def header(report, config, task, settings, baselines):
    report.say(f"minisum {minisum.__version__}, comparison on {config.task}")
    used = {name: value for name, value in settings.items() if value is not None}
    rows = {name.replace("_", " "): str(value)[:24] for name, value in used.items()}
    rows |= {"mixers": ", ".join(config.names())}
    rows |= {"test metric": f"{task.metric}, once, after the last step"}
    report.table(rows | {name: f"{value:.4f}" for name, value in baselines.items()})
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


def summarise(results, task):
    """One row a mixer, the best first: its runs side by side. Diverged runs count in no mean."""
    rows = []
    for mixer in dict.fromkeys(result["mixer"] for result in results):
        runs = [result for result in results if result["mixer"] == mixer]
        values = [run[task.metric] for run in runs if run[task.metric] is not None]
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
    sign = -1 if task.higher_is_better else 1
    rows.sort(key=lambda row: np.inf if row["mean"] is None else sign * row["mean"])
    return rows


def finish(report, folder, task, settings, results, baselines, scaling):
    """Print the table and write comparison.csv, .json, .png and scaling.png."""
    rows = summarise(results, task)
    summary = task.summary(folder, results, baselines)
    report.say(
        "\n".join(["", *table(rows, task.metric, baselines), *summary, *scaling_table(scaling)])
    )
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


def table(rows, metric, baselines):
    lines = [["mixer", metric, "lowest", "highest", "parameters", "state", "tokens/s", "MiB", ""]]
    for row in rows:
        scores = ["-" if row[k] is None else f"{row[k]:.4f}" for k in ("mean", "lowest", "highest")]
        costs = [row[k] for k in ("parameters", "state_numbers", "tokens_per_second")]
        costs = ["-" if cost is None else readable(cost) for cost in costs]
        memory = f"{row['step_memory_bytes'] / 2**20:.1f}"
        note = f"{row['diverged']} of {row['seeds']} diverged" if row["diverged"] else ""
        lines.append([row["mixer"], *scores, *costs, memory, note])
    return [
        *aligned(lines),
        *aligned([[name, f"{value:.4f}"] for name, value in baselines.items()]),
        "state: numbers kept from token to token by the causal form, all layers together",
        "MiB: what a forward and backward pass takes beside parameters and optimiser",
    ]


def scaling_table(scaling):
    if not scaling:
        return []
    lines = []
    for row in scaling:
        last = row["rows"][-1]
        time, memory = 1000 * last["seconds"], last["memory_bytes"] / 2**20
        slope = "-" if row["slope"] is None else f"{row['slope']:.2f}"
        cells = [f"n {last['n']:,}", f"{time:.1f} ms", f"{memory:.1f} MiB", f"slope {slope}"]
        lines.append([row["mixer"], *cells])
    title = "time and memory of one layer, forward and backward, batch 1; slope 1 is linear"
    return ["", title, *aligned(lines)]
