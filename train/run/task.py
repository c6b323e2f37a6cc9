"""What the training loop asks of a task.

A classifier, a language model, a regressor and a forecaster differ in what a training example is
(`train_size`, `train_batch`) and in what a good model is (`evaluate`, `metric`). The rest is the
same for all of them and is in train.loop.
"""

import copy
import dataclasses
from functools import cached_property

import numpy as np

from minisum.checkpoint import TOKENIZER
from minisum.text import batches
from minisum.text.tokenizer import save_tokenizer
from train.run.options import Config


class Task:
    """Batches are dicts of host arrays with a leading axis B. Subclasses are picklable."""

    name: str  # "classifier": python -m train.classifier
    config_class: type
    description: str  # for --help
    predict = None  # a static method: (minisum.runs.Run, flags given for it by name) -> None
    predict_help: str
    predict_flags = ("data", "separator", "encoding", "format")
    config: Config
    dataset: str
    data_sha256: str
    tokenizer = pretrained = None
    train_size: int  # examples
    metric: str  # the key of `evaluate` that chooses the epoch
    higher_is_better: bool
    compared: tuple  # the mixers that --mixer all trains
    untrained: tuple = ()  # those of them that are solved for
    report_metrics: tuple  # the keys that their comparison shows
    details = {}  # what result.json has beside the summary

    @classmethod
    def load(cls, config, folder, resume):
        """The task of `config` with its data. On resuming, the tokenizer is the RunFolder's."""

    def __init__(self, config, data, tokenizer=None, pretrained=None):
        self.config, self.dataset, self.data_sha256 = config, data.name, data.sha256
        if tokenizer is not None:
            self.tokenizer, self.vocab = tokenizer, tokenizer.get_vocab_size()
        if pretrained is not None:
            self.pretrained, self.vocab = pretrained, pretrained.sizes["vocab"]

    @cached_property
    def model(self):
        """See minisum.models.base."""
        from minisum.runs.reading import build_model

        return build_model(**self.model_spec()["model"])

    def train_batch(self, rows):
        """The batch of these training rows, without noise."""
        return self.batch("train", rows)

    def outputs(self, split, predict, of=lambda outputs, rows: outputs):
        """(N, ...) float64: of(a batch's outputs, its rows) for a split, short texts first."""
        order = np.argsort(self.texts[split].lengths, kind="stable")
        chunks = batches.batches(order, self.config.batch_size)
        found = [of(predict(self.batch(split, rows)).astype(float), rows) for rows in chunks]
        return np.concatenate(found)[np.argsort(order)]

    def evaluate(self, split, predict, folder=None):
        """Metrics on split "val" or "test": a dict with "loss", `metric` and any others.

        predict(batch) gives the model's outputs as host arrays. folder: a path for tables and
        figures of the test split; None writes none.
        """

    def fit_after(self, predict):
        """Fit what is fitted on the validation split after training; whether anything was."""
        return False

    def sample(self, params):
        """What the model writes after an epoch, for a person to read; None for nothing."""

    def draw(self, folder):
        """Draw what `evaluate` wrote into `folder`: once the result is safe."""

    def summary(self):
        """Sizes and baselines for the header and result.json: a JSON-able dict."""

    def baselines(self):
        """name -> metrics on the test split of what is solved for and compared with every run."""
        return {}

    def model_spec(self):
        """All that prediction needs beside the parameters and the tokenizer, as JSON.

        "model": arguments of minisum.runs.reading.build_model. It is kept in best.safetensors.
        """

    def tokens(self, batch):
        """Tokens of a batch, for the speed."""
        return int(batch["mask"].sum())

    def order(self, epoch):
        """All training rows (train_size,) in this epoch's order, drawn from (seed, epoch)."""
        return batches.epoch_order(self.train_size, self.config.seed, epoch)

    def save(self, path):
        """Write what prediction needs beside the checkpoint, a tokenizer, into folder `path`."""
        if self.tokenizer is not None:
            save_tokenizer(self.tokenizer, path / TOKENIZER)

    def with_mixer(self, mixer):
        """The same task with the same data, for another mixer (--mixer all)."""
        other = copy.copy(self)
        for name in ("model", "rival"):
            other.__dict__.pop(name, None)
        other.config = self.resolve(dataclasses.replace(self.config, mixer=mixer))
        return other

    @staticmethod
    def resolve(config):
        """The config with the defaults that depend on the mixer filled in."""
        return config
