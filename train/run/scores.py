"""What a classifier does on its test set: by class, by example, and how well calibrated."""

import csv
import io

import numpy as np

from minisum import files
from minisum.runs.explanation import softmax
from train.run.figures import finish, picture
from train.run.report import csv_of

BINS = 15
MOST_CLASSES = 1000  # of tables by class: theirs are the classes squared
SHOWN_CLASSES = 40  # in the picture; more could not be read


def report(folder, chosen, confidence, labels, texts, class_names):
    """Write classes.csv, confusion.json and predictions.csv of N test examples.

    chosen (N,) are the predicted classes and confidence (N,) their probabilities; labels (N,).
    Returns the calibration error.
    """
    if len(class_names) <= MOST_CLASSES:
        confusion = np.zeros((len(class_names),) * 2, int)
        np.add.at(confusion, (labels, chosen), 1)
        files.write_text(folder / "classes.csv", csv_of(by_class(confusion, class_names)))
        content = {"classes": class_names, "rows_true_columns_predicted": confusion.tolist()}
        files.write_json(folder / "confusion.json", content, sealed=True)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["true", "predicted", "probability", "text"])
    for row, text in enumerate(texts):
        found = class_names[labels[row]], class_names[chosen[row]]
        writer.writerow([*found, f"{confidence[row]:.6f}", text])
    files.write_text(folder / "predictions.csv", lines.getvalue())
    return calibration_error(confidence, chosen == labels)


def draw(folder):
    """Write confusion.png of confusion.json, where matplotlib is installed."""
    if not (folder / "confusion.json").exists():  # of too many classes
        return
    content = files.read_json(folder / "confusion.json")
    confusion = np.array(content["rows_true_columns_predicted"])
    draw_confusion(folder / "confusion.png", confusion, content["classes"])


def by_class(confusion, class_names):
    """Precision, recall, F1 and the number of examples of every class; 0 where there are none."""
    hits, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        {
            "class": name,
            "precision": float(hits[c] / max(1, predicted[c])),
            "recall": float(hits[c] / max(1, true[c])),
            "f1": float(2 * hits[c] / max(1, predicted[c] + true[c])),
            "examples": int(true[c]),
        }
        for c, name in enumerate(class_names)
    ]


def calibration_error(confidence, right):
    """How far a prediction's probability is from how often it is right, on average.

    Σ_b n_b / N |accuracy_b - confidence_b| over bins of equal width of the highest probability.
    Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def fit_temperature(logits, labels):
    """The T that makes the mean nll of softmax(logits / T) least; between 0.01 and 100.

    In β = 1/T the nll is convex, and its slope is the mean of Σ_c p_c z_c - z_label: bisected.
    Guo et al. 2017, section 4.2. Where every label is the likeliest class, ever lower temperatures
    would be better, and it stays 1.
    """
    if (logits.argmax(axis=1) == labels).all():
        return 1.0
    low, high = np.log(0.01), np.log(100)
    right = logits[np.arange(len(labels)), labels].mean()
    for _ in range(60):
        middle = (low + high) / 2
        slope = (softmax(logits * np.exp(middle)) * logits).sum(axis=1).mean() - right
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-middle))


@picture(8, 7)
def draw_confusion(figure, confusion, class_names):
    """Of each true class, a row, the fractions that were predicted as each class."""
    order = np.sort(np.argsort(-confusion.sum(axis=1), kind="stable")[:SHOWN_CLASSES])
    shown = confusion[np.ix_(order, order)]
    fractions = shown / np.maximum(1, confusion.sum(axis=1)[order, None])
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    names = [str(class_names[c])[:24] for c in order]
    size = 8 if len(order) <= 25 else 6
    axes.set_xticks(range(len(order)), names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(len(order)), names, fontsize=size, parse_math=False)
    if len(order) <= 25:
        for (row, column), count in np.ndenumerate(shown):
            if count:
                colour = "white" if fractions[row, column] > 0.5 else "black"
                axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=7)
    finish(axes, "predicted class", "true class", legend=False)
    axes.grid(False)
    figure.colorbar(image, label="fraction of the true class")
    if len(order) < len(class_names):
        axes.set_title(f"the {len(order)} largest of {len(class_names)} classes", fontsize=10)
