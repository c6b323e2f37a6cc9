"""The end of a run: what was trained beside what it is compared with, and who wins."""

from train.run.tables import aligned, in_two_lines


def comparison(task, results):
    """Lines: models and baselines by their test metrics, and the winner if it was not trained.

    results: contents of result.json. Time is relative to the first.
    """
    baselines = [
        {"mixer": name} | {f"test_{metric}": value for metric, value in measured.items()}
        for name, measured in task.baselines().items()
        if name not in {result["mixer"] for result in results}
    ]
    titles = [f"test {metric.replace('_', ' ')}" for metric in task.report_metrics]
    titles = ["mixer", *titles, "parameters", "tokens/s", "time", "best epoch"]
    lines = [list(part) for part in zip(*map(in_two_lines, titles), strict=True)]
    for row in (*results, *baselines):
        scores = [row.get(f"test_{metric}") for metric in task.report_metrics]
        cells = [row["mixer"], *("" if score is None else f"{score:.4f}" for score in scores)]
        cells.append(f"{row['parameters']:,}" if "parameters" in row else "")
        costs = ["", "", ""]
        if row in results and row["mixer"] not in task.untrained:
            # Speeds, not total times: the mixers may stop after different numbers of epochs.
            ratio = results[0]["tokens_per_second"] / row["tokens_per_second"]
            costs = [f"{row['tokens_per_second']:,.0f}", f"{ratio:.2f}x", str(row["best_epoch"])]
        lines.append(cells + costs)
    return [*aligned(lines), *who_wins(task, [*results, *baselines])]


def who_wins(task, rows):
    """[a sentence] if the best test score is of something that is not trained, else []."""
    score, sign = f"test_{task.metric}", 1 if task.higher_is_better else -1
    best = max(rows, key=lambda row: sign * row[score])
    others = {*task.untrained, *task.baselines()}
    if best["mixer"] not in others or all(row["mixer"] in others for row in rows):
        return []
    what = f"a test {task.metric.replace('_', ' ')} of {best[score]:.4f}"
    return [f"{best['mixer']} is best, with {what}: no model of this library beats it."]
