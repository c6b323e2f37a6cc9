"""The tasks of train.compare: their settings, their data and what is known without learning.

What a task is stands in base.py; sequences.py has recall, copying and state tracking.
"""

from functools import lru_cache, partial

import numpy as np

from data.generated import listops
from data.generated.regression import Regression
from data.sets import classification as texts
from minisum.models.closed_form import ridge
from minisum.models.encoder import EncoderClassifier, EncoderRegressor
from minisum.text import batches
from minisum.text.tokenizer import BYTES_VOCAB, encode, encode_bytes, train_tokenizer
from train.compare import sequences
from train.compare.base import TEST_STREAM, GeneratedTask, Task, fingerprint

WORDS = {"length": 256, "vocab_size": 10_000, "train_size": None, "test_size": None}
# task -> its own settings with their defaults; those of other tasks it refuses
SETTINGS = {
    **sequences.SETTINGS,
    "listops": {
        "length": 2000, "min_length": 500, "max_depth": 10, "train_size": 96_000,
        "test_size": 2000,
    },
    "bytes": {"dataset": texts.DEFAULT, "length": 1000, "train_size": None, "test_size": None},
    "regression": {
        "dims": 10, "pairs": 20, "noise": 0.5, "noise_kind": "fixed", "test_size": 10_000,
    },
    **dict.fromkeys(texts.NAMES, WORDS),
}  # fmt: skip
NAMES = tuple(SETTINGS)


def build(config):
    """The task of a config; generates or reads its data."""
    makers = {"listops": listops_task, "regression": RegressionTask}
    makers |= sequences.TASKS
    return makers.get(config.task, text_task)(config)


class SetTask(Task):
    """A fixed set of labelled token sequences: ListOps, bytes, words.

    train and test: (Ragged, labels (N,)). more: baselines besides the majority.
    """

    def __init__(self, config, train, test, vocab, classes, more=None):
        super().__init__(config, config.length)
        self.train, self.test, self.vocab, self.classes = train, test, vocab, classes
        self.more = more or {}
        parts = ((tokens.flat, tokens.offsets, labels) for tokens, labels in (train, test))
        self.sha256 = fingerprint(array for part in parts for array in part)
        self.order = lru_cache(maxsize=1)(partial(batches.epoch_order, len(train[1])))

    def model(self, mixer):
        config = self.config
        sizes = (self.vocab, config.width, self.classes, self.max_len)
        return EncoderClassifier(mixer, *sizes, encoder=self.encoder(), dropout=config.dropout)

    def train_batch(self, seed, step):
        size = min(self.config.batch_size, len(self.train[1]))
        epoch, place = divmod(step - 1, len(self.train[1]) // size)
        rows = self.order(seed, epoch + 1)[place * size : (place + 1) * size]
        return self._batch(self.train, rows)

    def test_batches(self):
        by_length = np.argsort(self.test[0].lengths, kind="stable")
        for rows in batches.batches(by_length, self.config.batch_size):
            yield self._batch(self.test, rows)

    def _batch(self, split, rows):
        tokens, labels = split
        ids, mask = batches.pad(tokens.take(rows), self.max_len)
        return {"ids": ids, "mask": mask, "targets": labels[rows].astype(np.int32)}

    def tokens(self, batch):
        return int(batch["mask"].sum())

    def baselines(self):
        likeliest = np.bincount(self.train[1]).argmax()
        return {"majority": float((self.test[1] == likeliest).mean())} | self.more


class RegressionTask(GeneratedTask):
    """Mean squared error against w·x, beside that of the best linear fits to the same examples."""

    metric, higher_is_better = "squared_error", False

    def __init__(self, config):
        super().__init__(config, config.pairs + 1)
        mixed = config.noise_kind == "mixed"
        self.source = Regression(config.dims, config.pairs, config.noise, mixed)

    def _draw(self, stream, rows):
        return {k: a for k, a in super()._draw(stream, rows).items() if k != "sigmas"}

    def model(self, mixer):
        inputs = self.config.dims + 1
        return EncoderRegressor(mixer, inputs, self.config.width, self.max_len, **self.encoder())

    def score(self, outputs, batch):
        return float(((outputs.astype(np.float64) - batch["targets"]) ** 2).sum())

    def tokens(self, batch):
        return batch["x"].shape[0] * batch["x"].shape[1]

    def baselines(self):
        drawn = self.source.draw(np.random.default_rng(TEST_STREAM), self.config.test_size)
        answers = {
            "zero": np.zeros(self.config.test_size),
            "least squares": ridge(drawn["x"], np.zeros(self.config.test_size)),
            "ridge, noise known": ridge(drawn["x"], drawn["sigmas"]),
        }
        return {name: float(((y - drawn["targets"]) ** 2).mean()) for name, y in answers.items()}


def listops_task(config):
    rules = listops.Rules(
        max_depth=config.max_depth, min_length=config.min_length, max_length=config.length
    )
    splits = listops.load(config.train_size, 0, config.test_size, rules=rules)
    train, test = splits["train"], splits["test"]
    examples = [(part.tokens, part.values) for part in (train, test)]
    return SetTask(config, *examples, listops.VOCAB, 10, listops_baselines(train, test))


def listops_baselines(train, test):
    """The accuracy of the first token alone, and of evaluating the upper levels only."""
    roots, asked = (part.tokens.flat[part.tokens.offsets[:-1]] for part in (train, test))
    usual = np.bincount(train.values).argmax()
    table = {root: np.bincount(train.values[roots == root]).argmax() for root in np.unique(roots)}
    guesses = {"first token only": [table.get(root, usual) for root in asked]}
    for levels, name in ((1, "top level only"), (2, "top two levels")):
        values = [listops.evaluate(tree, levels) for tree in test.tokens]
        guesses[name] = [usual if value is None else value for value in values]
    return {name: float((np.array(g) == test.values).mean()) for name, g in guesses.items()}


def text_task(config):
    """Classification of a corpus by its bytes (--task bytes) or its words."""
    in_bytes = config.task == "bytes"
    sizes = {"limit_train": config.train_size, "limit_test": config.test_size}
    data = texts.load_classification(config.dataset if in_bytes else config.task, **sizes)
    train, test = data.splits["train"], data.splits["test"]
    if in_bytes:
        vocab, encoded = BYTES_VOCAB, [encode_bytes(p.texts, config.length) for p in (train, test)]
    else:
        tokenizer = train_tokenizer(train.texts, "word", config.vocab_size)
        vocab = tokenizer.get_vocab_size()
        encoded = [
            batches.Ragged.from_list(encode(tokenizer, part.texts)).truncate(config.length)
            for part in (train, test)
        ]
    examples = zip(encoded, (train.labels, test.labels), strict=True)
    return SetTask(config, *examples, vocab, len(data.class_names))
