"""Predict a number from a text and some numbers: python -m train.multimodal

Without arguments it learns how long a function of Python's standard library is from its docstring
and its signature. `--mixer all` trains direct summation with one shared channel, attention with
concatenation, and the words alone under one budget, and puts ridge regression on the numbers
alone beside them.
"""

import copy
import dataclasses
import math
import sys
from functools import cached_property
from itertools import islice

import numpy as np

from data.sets.multimodal import Columns, Standardiser, load_multimodal, read_table
from data.text import batches
from data.text.tokenizer import encode, load_tokenizer, save_tokenizer, train_tokenizer
from minisum import backend
from minisum.errors import UserError
from minisum.models.closed_form import solve_ridge
from minisum.models.multimodal import MIXERS
from minisum.shards import Shards
from train.command_line import Command, main
from train.multimodal_config import MultimodalConfig, build_model, settle
from train.run import figures
from train.run.folder import TOKENIZER
from train.run.predict import best_of, matched
from train.run.row_input import NAME as STANDARD_INPUT
from train.run.row_input import rows_of_standard_input

ALPHA = 1.0  # of ridge regression, on standardised columns


class Multimodal:
    """The regression as a task for train.loop. Inside, targets have mean 0 and deviation 1."""

    name = "multimodal"
    metric = "rmse"
    rivals = tuple(MIXERS)
    shown = ("mae", "rmse", "r2")
    higher_is_better = False

    def __init__(self, config, data, tokenizer, folder):
        self.config, self.data, self.tokenizer = settle(config), data, tokenizer
        self.folder = folder
        self.dataset, self.data_sha256 = data.name, data.sha256
        self.vocab = tokenizer.get_vocab_size()
        self.tables = data.splits
        known = self.tables["train"]
        self.train_size = len(known)
        self.standardise = Standardiser.fit(known.numbers, data.columns.numbers)
        self.mean, self.deviation = float(known.targets.mean()), float(known.targets.std())
        if self.deviation == 0:
            raise UserError(f"{data.name}: the training rows are too few to differ in the target")
        self.texts, self.numbers = {}, {}
        for name, table in self.tables.items():
            self.texts[name] = encode_texts(config, tokenizer, table.texts)
            self.numbers[name] = self.standardise(table.numbers)

    @cached_property
    def model(self):
        return build_model(self.config, self.card(), self.ridge if self.solved else None)

    @property
    def solved(self):
        return self.config.mixer == "ridge"

    @cached_property
    def ridge(self):
        """(w, b) of ridge regression on the numbers of the training rows."""
        flat = self.numbers["train"].reshape(self.train_size, -1)
        return solve_ridge(flat, self.targets("train"), ALPHA)

    def targets(self, split):
        """Standardised."""
        return ((self.tables[split].targets - self.mean) / self.deviation).astype(np.float32)

    def order(self, epoch):
        if self.config.unshuffled:
            return np.arange(self.train_size)
        return batches.epoch_order(self.train_size, self.config.seed, epoch)

    def train_batch(self, rows):
        return self.batch("train", rows)

    def batch(self, split, rows):
        batch = make_batch(self.config, self.texts[split].take(rows), self.numbers[split][rows])
        return {**batch, "targets": self.targets(split)[rows]}

    def tokens(self, batch):
        return int(batch["mask"].sum())

    def evaluate(self, split, predict):
        """Errors in the data's own units; "loss" is squared and standardised, like the training's.

        The look at the test split also draws predicted.png.
        """
        texts, true = self.texts[split], self.tables[split].targets
        outputs = np.empty(len(true))
        by_length = np.argsort(texts.lengths, kind="stable")  # little padding a batch
        for rows in batches.batches(by_length, self.config.batch_size):
            outputs[rows] = predict(self.batch(split, rows))
        predicted = outputs * self.deviation + self.mean
        if split == "test":
            baseline = ("ridge on the numbers", self.ridge_predictions("test"))
            path = self.folder / "predicted.png"
            figures.predicted_against_true(
                path, true, predicted, self.data.columns.target, baseline
            )
        standardised = outputs - (true - self.mean) / self.deviation
        return {"loss": float(np.mean(standardised**2)), **errors(true, predicted)}

    def ridge_predictions(self, split):
        w, b = self.ridge
        flat = self.numbers[split].reshape(len(self.numbers[split]), -1)
        return (flat @ w + b) * self.deviation + self.mean

    def facts(self):
        columns, test = self.data.columns, self.tables["test"].targets
        missing = sum(int(np.isnan(t.numbers).sum()) for t in self.tables.values())
        mean = errors(test, np.full(len(test), self.mean))
        ridge = errors(test, self.ridge_predictions("test"))
        return {
            "train_examples": self.train_size,
            "val_examples": len(self.tables["val"]),
            "test_examples": len(test),
            "text": columns.text,
            "numbers": ", ".join(columns.numbers),
            "target": columns.target,
            "missing_numbers": f"{missing:,}, each replaced by its column's mean and flagged"
            if self.standardise.flagged
            else missing,
            "rows_left_out": self.data.left_out,
            "vocabulary": self.vocab,
            **{f"mean_{name}": value for name, value in mean.items()},
            **{f"ridge_{name}": value for name, value in ridge.items()},
        }

    def card(self):
        return {
            "vocab": self.vocab,
            "columns": dataclasses.asdict(self.data.columns),
            "standardiser": dataclasses.asdict(self.standardise),
            "mean": self.mean,
            "deviation": self.deviation,
        }

    def save(self, path):
        save_tokenizer(self.tokenizer, path / TOKENIZER)

    def with_mixer(self, mixer):
        """The same task, data and all, for another mixer."""
        other = copy.copy(self)
        other.config = settle(dataclasses.replace(self.config, mixer=mixer))
        other.folder = self.folder / mixer
        return other


def errors(true, predicted):
    """MAE, RMSE and R², the share of the variance that predicting the mean leaves unexplained."""
    squared = (predicted - true) ** 2
    spread = ((true - true.mean()) ** 2).sum()
    r2 = 1 - squared.sum() / spread if spread else float(not squared.any())
    return {
        "mae": float(np.abs(predicted - true).mean()),
        "mse": float(squared.mean()),
        "rmse": math.sqrt(squared.mean()),
        "r2": float(r2),
    }


def load(config, folder, resume):
    """The task of `config`; its tokenizer is trained on the training rows, or read on resuming."""
    data = load_multimodal(
        dataset=config.dataset if config.data is None else None,
        data_file=config.data,
        test_file=config.test_data,
        text_column=config.text_column,
        numeric_columns=config.numeric_columns,
        target=config.target,
        limit_train=config.limit_train,
        limit_test=config.limit_test,
        validation=0 if config.select == "test" else config.validation,
        seed=config.seed,
    )
    path = folder.tokenizer
    if resume and path.exists():
        tokenizer = load_tokenizer(path)
    else:
        texts = data.splits["train"].texts
        tokenizer = train_tokenizer(texts, config.tokenizer, config.vocab_size)
    return Multimodal(config, data, tokenizer, folder.path)


def encode_texts(config, tokenizer, texts):
    """Token numbers of `texts`, each cut to what the model reads, as Ragged."""
    return batches.Ragged.from_list(encode(tokenizer, texts)).truncate(config.max_len)


def make_batch(config, texts, numbers):
    pad_to = config.max_len if config.unmasked else None
    ids, mask = batches.pad(texts, config.max_len, pad_to=pad_to)
    return {"ids": ids, "mask": mask | config.unmasked, "numbers": numbers}


def predict(folder, config):
    """Print a number for each row of standard input, by the best parameters of the run."""
    arrays, card = best_of(folder, "multimodal")
    tokenizer = load_tokenizer(folder.tokenizer)
    if tokenizer.get_vocab_size() != card["vocab"]:
        raise UserError(f"{folder} holds a tokenizer that its model was not trained with")
    columns = Columns(card["columns"]["text"], tuple(card["columns"]["numbers"]), None)
    standardise = Standardiser(**card["standardiser"])
    xp = backend.get(config.backend)
    model = build_model(config, card)
    params = matched(model, arrays, xp, folder)
    runner = Shards(model, threads=config.threads, rows=config.shard_rows)
    rows, start = rows_of_standard_input(), 1
    while piece := list(islice(rows, config.batch_size)):
        table = read_table(piece, STANDARD_INPUT, columns, start)
        texts = encode_texts(config, tokenizer, table.texts)
        batch = make_batch(config, texts, standardise(table.numbers))
        outputs = backend.to_numpy(runner.predict(params, model.to_device(batch, xp)))
        for value in outputs * card["deviation"] + card["mean"]:
            print(f"{value:.6g}")
        sys.stdout.flush()
        start += len(piece)


COMMAND = Command(
    task="multimodal",
    description="Predict a number from a text and some numbers, by direct summation with one "
    "shared channel or by one of its rivals.",
    config_class=MultimodalConfig,
    load=load,
    predict=predict,
    predict_help="read rows (csv with a header, or JSON lines) with the text and numeric columns "
    "of the run in DIR from standard input, and print a number for each",
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
