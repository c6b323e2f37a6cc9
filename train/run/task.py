"""What the training loop asks of a task.

A classifier, a language model, a regressor and a forecaster differ in what a training example is
(`train_size`, `order`, `train_batch`) and in what a good model is (`evaluate`, `metric`). The
rest is the same for all of them and is in train.loop.
"""

from typing import Protocol

from train.run.options import Config


class Task(Protocol):
    """Batches are dicts of host arrays with a leading axis B."""

    name: str  # "classifier"
    config: Config
    model: object  # see minisum.models.base
    dataset: str
    data_sha256: str
    train_size: int  # examples
    metric: str  # the key of `evaluate` that chooses the epoch
    compared: tuple  # the mixers that --mixer all trains
    report_metrics: tuple  # the keys that their comparison shows
    higher_is_better: bool

    def order(self, epoch):
        """All training rows (train_size,) in this epoch's order, drawn from (seed, epoch)."""

    def train_batch(self, rows):
        """The batch of these rows, without noise."""

    def tokens(self, batch):
        """Tokens of a batch, for the speed."""

    def evaluate(self, split, predict, folder=None):
        """Metrics on split "val" or "test": a dict with "loss", `metric` and any others.

        predict(batch) gives the model's outputs as host arrays. folder: a path for tables and
        figures of the test split; None writes none.
        """

    def summary(self):
        """Sizes and baselines for the header and result.json: a JSON-able dict."""

    def model_spec(self):
        """What it takes to rebuild the model beside the config; kept in best.safetensors."""

    def save(self, path):
        """Write what prediction needs beside the checkpoint (a tokenizer) into folder `path`."""

    def with_mixer(self, mixer):
        """The same task with the same data, for another mixer (--mixer all)."""
