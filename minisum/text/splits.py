"""Which examples are trained on, which are held out, and which subset stands for all.

A text is known by its key (lower case, single spaces). Two examples with the same key always stay
on the same side, so a held-out text has never been trained on.

The functions on `examples` take what has `texts`, `labels` (class numbers), `take(rows)` and a
length.
"""

import hashlib

import numpy as np

from minisum.errors import UserError

SPLITS = ("train", "val", "test")


def text_key(text: str) -> str:
    """The form in which two texts count as the same: lower case, single spaces."""
    return " ".join(text.lower().split())


def hold_out(texts, labels, fraction, salt) -> tuple[np.ndarray, np.ndarray]:
    """Indices (kept, held out), each ascending: about `fraction` of every class held out.

    The order within a class is that of a hash of the text and `salt`, so the answer depends on
    the contents alone: not on the order of the rows, the process or the machine. Every class
    keeps an example on the first side. A text that occurs under several labels follows the
    smallest of them. Raises UserError if a side would be empty.
    """
    keys = [text_key(text) for text in texts]
    by_key = {}
    for key, label in zip(keys, labels, strict=True):
        by_key.setdefault(key, set()).add(int(label))
    by_class = {}
    for key, own in by_key.items():
        digest = hashlib.blake2b(f"{salt}\n{key}".encode(), digest_size=16).digest()
        by_class.setdefault(min(own), []).append((digest, key))
    drawn = []
    for _, members in sorted(by_class.items()):
        drawn += [key for _, key in sorted(members)[: int(len(members) * fraction + 0.5)]]

    held_keys = set(drawn)
    kept_labels = set().union(*(own for key, own in by_key.items() if key not in held_keys))
    for key in drawn:
        # A label that is left only on the held-out side takes its text back.
        if not by_key[key] <= kept_labels:
            held_keys.remove(key)
            kept_labels |= by_key[key]

    held = np.array([key in held_keys for key in keys], bool)
    if held.all() or not held.any():
        raise UserError(
            f"{len(by_key)} different texts are too few to hold out {fraction:.0%} of each class"
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def hold_out_test(examples, fraction=0.2):
    """(rest, test) where none comes along; the same for every seed, so that all runs agree."""
    rest, test = hold_out(examples.texts, examples.labels, fraction, "test")
    return examples.take(rest), examples.take(test)


def overlap(splits) -> int:
    """How many test texts are also training or validation texts, by their keys.

    splits: name -> texts, or what has `texts`.
    """
    keys = {s: [text_key(t) for t in getattr(part, "texts", part)] for s, part in splits.items()}
    known = {*keys["train"], *keys["val"]}
    return sum(key in known for key in keys["test"])


def hold_out_validation(examples, fraction, seed):
    """(train, validation), another for each seed; nothing is held out if `fraction` is 0."""
    if not 0 <= fraction < 1:
        raise UserError(f"the validation fraction must lie between 0 and 1, not {fraction}")
    if fraction == 0:
        return examples, examples.take(np.arange(0))
    train, held = hold_out(examples.texts, examples.labels, fraction, f"validation {seed}")
    return examples.take(train), examples.take(held)


def choose_subset(labels, limit, seed, stream=0) -> np.ndarray:
    """Indices, ascending, of `limit` examples drawn at random in the proportions of the classes.

    All of them if `limit` is None or larger than their number. The first rows would not do:
    files are often sorted by label. `stream` tells apart draws of the same seed.
    """
    labels = np.asarray(labels)
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    if limit < 1:
        raise UserError(f"a limit on the number of examples must be at least 1, not {limit}")
    rng = np.random.default_rng([seed, stream])
    order = rng.permutation(len(labels))
    quantile = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        # A random phase a class, or all classes would enter the subset at the same sizes.
        quantile[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.sort(np.argsort(quantile, kind="stable")[:limit])
