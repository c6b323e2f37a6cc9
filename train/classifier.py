"""Train a text classifier: python -m train.classifier

Without arguments it learns to tell the packages of Python's standard library apart by their
docstrings: text that is on every machine. `--mixer all` trains direct summation and its rivals
under one budget and compares them.

There are two kinds of models. `summation`, `attention` and `mean_embedding` are the published ones
of one layer. Any other mixer, or `--layers` from 2 on, or `--encoder` asks for an encoder: pre-norm
blocks around the mixer, then the mean over the tokens (minisum.models.encoder).
"""

import copy
import dataclasses
import sys
from functools import cached_property

import numpy as np

from data.sets.classification import load_classification
from data.text import batches
from data.text.tokenizer import encode, load_tokenizer, save_tokenizer, train_tokenizer
from minisum import backend
from minisum.errors import UserError
from minisum.models import classifier as models
from minisum.shards import Shards
from train.classifier_config import ClassifierConfig, build_model, enough_epochs, with_rate
from train.command_line import Command, main
from train.run.folder import TOKENIZER
from train.run.predict import answer_lines, best_of, matched


class Classification:
    """The classifier as a task for train.loop."""

    name = "classifier"
    metric = "accuracy"
    rivals = tuple(models.MODELS)
    shown = ("accuracy", "macro_f1")
    higher_is_better = True

    def __init__(self, config, data, tokenizer):
        self.config, self.data, self.tokenizer = config, data, tokenizer
        self.dataset, self.data_sha256 = data.name, data.sha256
        self.vocab = tokenizer.get_vocab_size()
        self.texts = {split: self.encode(part.texts) for split, part in data.splits.items()}
        self.labels = {split: part.labels for split, part in data.splits.items()}
        self.train_size = len(self.labels["train"])

    @cached_property
    def model(self):
        return build_model(self.config, self.card())

    def encode(self, texts):
        encoded = encode_texts(self.config, self.tokenizer, texts)
        batches.check_ids(encoded, self.vocab)
        return encoded

    def order(self, epoch):
        return batches.epoch_order(self.train_size, self.config.seed, epoch)

    def train_batch(self, rows):
        return self.batch("train", rows)

    def batch(self, split, rows):
        batch = make_batch(self.config, self.texts[split].take(rows))
        return {**batch, "targets": self.labels[split][rows]}

    def tokens(self, batch):
        return int(batch["mask"].sum())

    def evaluate(self, split, predict):
        texts, labels = self.texts[split], self.labels[split]
        logits = np.empty((len(labels), len(self.data.class_names)))
        by_length = np.argsort(texts.lengths, kind="stable")  # little padding a batch
        for rows in batches.batches(by_length, self.config.batch_size):
            logits[rows] = predict(self.batch(split, rows))
        chosen = logits.argmax(axis=1)
        return {
            "loss": float(-log_softmax(logits)[np.arange(len(labels)), labels].mean()),
            "accuracy": float((chosen == labels).mean()),
            "macro_f1": macro_f1(chosen, labels, len(self.data.class_names)),
        }

    def facts(self):
        counts = np.bincount(self.labels["train"], minlength=len(self.data.class_names))
        return {
            "train_examples": self.train_size,
            "val_examples": len(self.labels["val"]),
            "test_examples": len(self.labels["test"]),
            "classes": len(self.data.class_names),
            "vocabulary": self.vocab,
            "majority_accuracy": float((self.labels["test"] == counts.argmax()).mean()),
        }

    def card(self):
        return {"vocab": self.vocab, "class_names": self.data.class_names}

    def save(self, path):
        save_tokenizer(self.tokenizer, path / TOKENIZER)

    def with_mixer(self, mixer):
        """The same task, data and all, for another mixer."""
        other = copy.copy(self)
        other.config = with_rate(dataclasses.replace(self.config, mixer=mixer))
        return other


def load_data(config):
    return load_classification(
        dataset=config.dataset if config.data is None else None,
        data_file=config.data,
        test_file=config.test_data,
        text_column=config.text_column,
        label_column=config.label_column,
        limit_train=config.limit_train,
        limit_test=config.limit_test,
        validation=0 if config.select == "test" else config.validation,
        seed=config.seed,
    )


def load(config, folder, resume):
    """The task of `config`; its tokenizer is trained on the training rows, or read on resuming."""
    data = load_data(config)
    train = data.splits["train"]
    config = dataclasses.replace(config, epochs=config.epochs or enough_epochs(config, len(train)))
    config = config if config.mixer == "all" else with_rate(config)
    path = folder.tokenizer
    if resume and path.exists():
        tokenizer = load_tokenizer(path)
    else:
        tokenizer = train_tokenizer(train.texts, config.tokenizer, config.vocab_size)
    return Classification(config, data, tokenizer)


def encode_texts(config, tokenizer, texts):
    """Token numbers of `texts`, each cut to what the model reads, as Ragged."""
    keep = "last" if config.padding == "left" else "first"
    encoded = batches.Ragged.from_list(encode(tokenizer, texts, config.drop_unknown))
    return encoded.truncate(config.max_len, keep)


def make_batch(config, texts):
    left = config.padding == "left"
    pad_to = config.max_len if left else None
    ids, mask = batches.pad(texts, config.max_len, side=config.padding, pad_to=pad_to)
    return {"ids": ids, "mask": mask}


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def macro_f1(chosen, labels, classes):
    """The mean of 2 TP / (2 TP + FP + FN) over the classes that occur in either."""
    hits = np.bincount(labels[chosen == labels], minlength=classes)
    occurrences = np.bincount(labels, minlength=classes) + np.bincount(chosen, minlength=classes)
    occurring = occurrences > 0
    return float((2 * hits[occurring] / occurrences[occurring]).mean())


def predict(folder, config):
    """Answer standard input with the best parameters of the run in `folder`."""
    arrays, card = best_of(folder, "classifier")
    tokenizer = load_tokenizer(folder.tokenizer)
    if tokenizer.get_vocab_size() != card["vocab"]:
        raise UserError(f"{folder} holds a tokenizer that its model was not trained with")
    xp = backend.get(config.backend)
    model = build_model(config, card)
    params = matched(model, arrays, xp, folder)
    runner = Shards(model, threads=config.threads, rows=config.shard_rows)

    def classify(texts):
        batch = make_batch(config, encode_texts(config, tokenizer, texts))
        logits = backend.to_numpy(runner.predict(params, model.to_device(batch, xp)))
        probabilities = np.exp(log_softmax(logits.astype(np.float64)))
        best = probabilities.argmax(axis=1)
        for row, label in enumerate(best):
            yield card["class_names"][label], probabilities[row, label]

    answer_lines(classify, config.batch_size)


COMMAND = Command(
    task="classifier",
    description="Train a text classifier by direct summation, or by one of its rivals.",
    config_class=ClassifierConfig,
    load=load,
    predict=predict,
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
