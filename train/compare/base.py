"""What the tasks of train.compare have in common.

    task = tasks.build(config)                  config: a CompareConfig with its defaults resolved
    model = task.model("tssa")                  the same encoder around any mixer
    batch = task.train_batch(seed, step)        host arrays; step counts from 1
    task.test_scores(predict)                   name -> score; predict(batch) -> the model's outputs
    task.baselines()                            name -> what the metric is without learning

A training batch is a function of (seed, step) and the test set of the settings alone, so all mixers
see the same examples in the same order.
"""

from itertools import chain

import numpy as np

from data.fingerprint import data_sha256
from minisum.errors import UserError
from minisum.text import batches

# Of no training batch and no initial parameters: those have two numbers.
TEST_STREAM, VALIDATION_STREAM = (0, 0, 2), (0, 0, 3)


class Task:
    """What the tasks share. Subclasses define the metric, `model`, `score` and the batches."""

    causal = None  # the mixers' own way: both directions where they can
    metric, higher_is_better = "accuracy", True

    def __init__(self, config, max_len):
        self.config, self.max_len = config, max_len

    def encoder(self):
        sizes = self.config.pick("layers", "heads", "d_ff", "positions")
        return sizes | {"causal": self.causal}

    def test_scores(self, predict):
        """name -> score over all test targets, after training.   predict(batch) -> outputs"""
        return {self.metric: self.mean_score(predict, self.test_batches())}

    def mean_score(self, predict, examples):
        """Over all targets of some batches."""
        total, count = 0.0, 0
        for batch in examples:
            total += self.score(predict(batch), batch)
            count += batch["targets"].size
        return total / count

    def summary(self, folder, results, baselines):
        """Lines below the table of a finished comparison, and pictures of the task's own."""
        return []

    def score(self, outputs, batch):
        """Targets hit, out of batch["targets"].size."""
        return float((outputs.argmax(axis=-1) == batch["targets"]).sum())


class GeneratedTask(Task):
    """Examples drawn when they are needed, never twice the same: `self.source.draw(rng, rows)`."""

    def __init__(self, config, max_len):
        super().__init__(config, max_len)
        if config.dropout:
            raise UserError(
                f"--dropout has no meaning for --task {config.task}, where no example comes twice"
            )

    def train_batch(self, seed, step):
        return self._draw([seed, step], self.config.batch_size)

    def test_batches(self):
        return self.batches_of(self.test_set())

    def batches_of(self, examples):
        for rows in batches.batches(np.arange(self.config.test_size), self.config.batch_size):
            yield {name: array[rows] for name, array in examples.items()}

    def test_set(self):
        return self._draw(TEST_STREAM, self.config.test_size)

    def _draw(self, stream, rows):
        return self.source.draw(np.random.default_rng(stream), rows)

    @property
    def sha256(self):
        return fingerprint([*self.train_batch(0, 1).values(), *self.test_set().values()])


def fingerprint(arrays):
    """Of arrays with their types and shapes."""
    described = ((f"{a.dtype.str} {a.shape}\n".encode(), a.tobytes()) for a in arrays)
    return data_sha256(chain.from_iterable(described))
