"""What is said before training: why a test score will mean less than it seems to."""

from pathlib import Path


def cautions(task):
    """Sentences about a task and its data."""
    config, again = task.config, getattr(task, "test_texts_in_train", 0)
    if config.data is not None and config.data == getattr(config, "test_data", None):
        yield "--data and --test-data are one file: the test score is of rows that are trained on"
    elif again:
        yield f"{again:,} of the test texts are also training texts: they are not new to the model"
    if task.name == "forecast":
        yield from cut_otherwise(Path(config.data or "").name.partition(".")[0], config.split)


def cut_otherwise(name, split):
    """A sentence if a file is called like a set that is cut by months."""
    from data.sets.forecast import is_cut_by_months

    if split == "standard" and is_cut_by_months(name):
        yield (
            f"a file is cut into 70, 10 and 20%, but --dataset {name} into 12, 4 and 4 months: "
            "the scores of the two cannot be compared"
        )
