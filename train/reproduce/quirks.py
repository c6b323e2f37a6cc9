"""The quirks of the published experiments, and the protocols that keep them or take them back.

A quirk is a property of the released code that moves its numbers and that one would not choose
today. Each is a flag of the task's command, so each can be taken back alone.

A protocol is "published" (every quirk), "published-QUIRK" (all but this one), "published-all" (the
published settings with no quirk left), or "honest" (no quirk and, where they differ, the defaults
of the command; each mixer then has a learning rate of its own).
"""

import dataclasses

from minisum.errors import UserError

PUBLISHED, HONEST, ALL = "published", "honest", "all"


@dataclasses.dataclass(frozen=True)
class Quirk:
    """on, off: the flags that have it and those that take it back; "" if both numbers of one run
    are reported instead."""

    name: str
    on: str
    off: str
    about: str


@dataclasses.dataclass(frozen=True)
class Task:
    """How `python -m train.TASK` runs a family of sets.

    metrics: key -> title; published, honest: the protocols' flags beside those of the quirks;
    quick: flags that make a run a matter of seconds; untrained: mixers with a closed form.
    """

    mixers: tuple
    metrics: dict
    published: str
    honest: str
    quick: str
    quirks: tuple
    untrained: tuple = ()


TASKS = {
    "classifier": Task(
        mixers=("summation", "attention", "mean_embedding"),
        metrics={"accuracy": "accuracy"},
        published="--recipe published",
        honest="--patience 0",
        quick="--limit-train 200 --limit-test 100 --width 16 --max-len 32",
        quirks=(
            Quirk("unmasked", "--unmasked", "--no-unmasked", "padding is embedded, projected and "
                  "pooled like words, so that the length of a text can be read from the sum"),
            Quirk("left-padding", "--padding left", "--padding right",
                  "padded and cut at the front"),
            Quirk("dropped-words", "--drop-unknown", "--no-drop-unknown",
                  "words outside the vocabulary are left out"),
            Quirk("wide-heads", "--head-width full", "--head-width split", "each head of attention "
                  "is as wide as the model: four times the usual attention, which slows it and "
                  "raises the speed ratio"),
            Quirk("test-chooses", "--select test", "--select validation", "the figure is the best "
                  "of 20 epochs on the test set; all training rows train"),
        ),
    ),
    "causal": Task(
        mixers=("summation", "attention", "hybrid"),
        metrics={
            "batch_perplexity": "perplexity, mean over batches", "perplexity": "perplexity",
            "accuracy": "accuracy", "bits_per_byte": "bits per byte",
        },
        published="--recipe published --limit-test 1000",
        honest="--recipe published --limit-test 1000",
        quick="--limit-train 60 --limit-test 30 --width 32 --layers 2 --max-len 32",
        quirks=(
            Quirk("first-rows", "--first-rows", "--no-first-rows",
                  "the first 5,000 and 1,000 rows, of IMDB negative reviews only"),
            Quirk("last-epoch", "--select last", "--select validation",
                  "the last epoch is reported"),
            Quirk("growing-sums", "--sum-scale none", "--sum-scale length",
                  "cumulative sums grow with the length"),
            Quirk("batch-perplexity", "", "", "every batch counts the same in the perplexity, "
                  "however few tokens it has; both perplexities are reported"),
        ),
    ),
    "multimodal": Task(
        mixers=("summation", "attention", "words", "ridge"),
        metrics={"mae": "MAE", "r2": "R²", "mse": "MSE (printed as RMSE)", "rmse": "RMSE"},
        published="--recipe published",
        honest="--limit-train 8000 --limit-test 2000 --validation 0.25",
        quick="--limit-train 96 --limit-test 32 --width 16 --max-len 32",
        quirks=(
            Quirk("unmasked", "--unmasked", "--no-unmasked", "padding is read as words"),
            Quirk("unshuffled", "--unshuffled", "--no-unshuffled",
                  "the rows come in the same order in every epoch"),
            Quirk("mse-as-rmse", "", "", "what is printed as RMSE has no root; both are reported"),
        ),
        untrained=("ridge",),
    ),
    "forecast": Task(
        mixers=("hybrid", "attention", "linear"),
        metrics={"mse": "MSE", "mae": "MAE"},
        published="--recipe published",
        honest="--split published",
        quick="--limit-train 64 --limit-test 32 --window 64 --patch 32 --stride 32 --d-ff 16",
        quirks=(
            Quirk("last-epoch", "--select last", "--select validation",
                  "the last epoch is tested, not the best on validation rows"),
            Quirk("separate-windows", "--separate", "--no-separate",
                  "test windows drop what lies before their split"),
            Quirk("raw-windows", "--normalise none", "--normalise standard",
                  "windows keep their own mean and deviation"),
        ),
        untrained=("linear",),
    ),
}  # fmt: skip


def protocols_called(text):
    """The protocols of "published,honest,published-unmasked". UserError for an unknown name."""
    quirks = {quirk.name for task in TASKS.values() for quirk in task.quirks if quirk.on}
    known = [PUBLISHED, HONEST, *(f"{PUBLISHED}-{name}" for name in (ALL, *sorted(quirks)))]
    found = list(dict.fromkeys(split_names(text)))
    for name in found:
        if name not in known:
            raise UserError(f"--protocols: unknown {name!r}; known: {', '.join(known)}")
    if not found:
        raise UserError("--protocols names no protocol")
    return found


def split_names(text):
    return [name.strip() for name in text.split(",") if name.strip()]


def flags(task, protocol):
    """The flags of a protocol; None for published-QUIRK where the task has no such quirk."""
    task = TASKS[task]
    lost = protocol.removeprefix(PUBLISHED).removeprefix("-")
    if protocol == HONEST:
        lost = ALL
    elif lost and lost != ALL and not any(lost == quirk.name for quirk in task.quirks if quirk.on):
        return None
    chosen = [task.honest if protocol == HONEST else task.published]
    chosen += [quirk.off if lost in (quirk.name, ALL) else quirk.on for quirk in task.quirks]
    return tuple(" ".join(chosen).split())
