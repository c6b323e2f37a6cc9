"""Predict a number from a text and some numbers: python -m train.multimodal

Without arguments it learns how long a function of Python's standard library is from its docstring
and its signature. `--mixer all` trains direct summation with one shared channel, attention with
concatenation, and the words alone under one budget, and puts ridge regression on the numbers
alone beside them.
"""

import dataclasses
import math
import sys
from functools import cached_property

import numpy as np

from data.sets.multimodal import DEFAULT, NAMES, Columns, load_multimodal, read_table
from minisum.columns import Standardiser
from minisum.errors import UserError
from minisum.models import multimodal as models
from minisum.models.classifier import POOLING
from minisum.models.closed_form import solve_ridge
from minisum.runs.reading import build_model
from minisum.text.splits import overlap
from minisum.text.tokenizer import TextReader
from train import rivals
from train.command_line import main
from train.run import figures
from train.run.answers import table_rows, write_answers
from train.run.options import LIST, NAME, RATE, N, changed, option, recipes, refuse
from train.run.own_data import InitConfig, OwnTexts, of_name

REPLACED = ", each replaced by its column's mean and flagged"
ALPHA = 1.0  # of ridge regression, on standardised columns
TUNED_POOLING = {"summation": "sqrt", "words": "sqrt", "attention": "mean"}
SOLVED = ("ridge", *rivals.REGRESSORS)
# What a closed-form solution has no use for.
TRAINING = ("epochs", "lr", "schedule", "warmup", "weight_decay", "ema", "patience", "plateau")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultimodalConfig(InitConfig):
    dataset: str = of_name(OwnTexts, DEFAULT, NAMES, "table")
    text_column: str = option(None, "the column of texts", "data", **NAME)
    numeric_columns: tuple = option(
        None,
        "columns of numbers, standardised on the training rows; a missing value (empty, null, NaN) "
        "becomes the column's mean, with a second input that says it was missing", "data",
        **LIST,
    )  # fmt: skip
    target: str = option(
        None, "the column to predict; rows without it are left out", "data", **NAME
    )
    limit_train: int = option(None, "train on N rows only, drawn at random", "data", **N)
    limit_test: int = option(None, "test on N rows only, drawn at random", "data", **N)
    vocab_size: int = changed(OwnTexts, "vocab_size", 5000)
    mixer: str = option(
        "summation",
        "summation with one shared channel; attention and concatenation; words: summation without "
        "the numbers; ridge: the numbers without words, solved; tfidf_ridge: numbers, words and "
        "pairs of words, solved by scikit-learn; all compares them", "model",
        choices=(*models.MIXERS, *rivals.REGRESSORS, "all"),
    )  # fmt: skip
    layers: int = option(1, "mixing layers; these models have one", "model", **N | {"at_most": 1})
    width: int = changed(OwnTexts, "width", 128)
    max_len: int = changed(OwnTexts, "max_len", 300)
    pooling: str = option(
        None,
        "sum, mean or sum / sqrt(n) over the tokens (default: sqrt for summation, mean for "
        "attention; published: sum for summation, mean for attention)", "model",
        choices=(*POOLING, "published"),
    )  # fmt: skip
    unmasked: bool = option(
        False, "pad to --max-len and read the padding as words, as first published", "model"
    )
    dropout: float = changed(OwnTexts, "dropout", 0.2)
    token_dropout: float = option(0.0, "dropout rate of whole tokens", "model", **RATE)

    unshuffled: bool = option(False, "the same order of rows in every epoch, as first published")
    epochs: int = changed(OwnTexts, "epochs", 30)
    lr: float = changed(OwnTexts, "lr", 2e-4)
    ema: float = changed(OwnTexts, "ema", 0.99)
    patience: int = changed(OwnTexts, "patience", 5)
    plateau: int = changed(OwnTexts, "plateau", 3)

    RECIPES = recipes("multimodal")

    def check(self, given=()):
        super().check(given)
        if self.mixer in ("attention", "all") or "heads" in given:
            self.check_heads()
        if self.mixer in rivals.REGRESSORS:
            rivals.require()
        if self.init_from is not None and self.mixer not in ("summation", "words"):
            raise UserError(f"--init-from: --mixer {self.mixer} reads no text with an encoder")
        if self.mixer in SOLVED:
            refuse(TRAINING, given, f"--mixer {self.mixer} is solved, not trained")


class Multimodal(rivals.WithRivals):
    """The regression as a task for train.loop. Inside, targets have mean 0 and deviation 1."""

    name = "multimodal"
    config_class = MultimodalConfig
    description = (
        "Predict a number from a text and some numbers, by direct summation with one "
        "shared channel, or by another mixer."
    )
    predict_help = (
        "print a number for each row of standard input or of --data FILE (csv, tsv, jsonl, "
        "parquet), which has the text and numeric columns of the run in DIR"
    )
    predict_flags = ("data", "separator", "encoding", "format", "write")
    metric = "rmse"
    models, rivals, untrained = models.MIXERS, rivals.REGRESSORS, SOLVED
    report_metrics = ("mae", "rmse", "r2")
    higher_is_better = False

    @classmethod
    def load(cls, config, folder, resume):
        from train.texts import texts_of

        columns = config.pick("text_column", "numeric_columns", "target")
        data = load_multimodal(**config.source(), **columns, **config.split())
        config, words, pretrained = texts_of(config, folder, resume, data.splits["train"].texts)
        return cls(config, data, words, pretrained)

    def __init__(self, config, data, tokenizer, pretrained=None):
        super().__init__(self.resolve(config), data, tokenizer, pretrained)
        self.data, self.tables = data, data.splits
        known = self.tables["train"]
        self.train_size = len(known)
        self.standardise = Standardiser.fit(known.numbers, data.columns.numbers)
        self.mean, self.deviation = float(known.targets.mean()), float(known.targets.std())
        if self.deviation == 0:
            raise UserError(f"{data.name}: the training rows are too few to differ in the target")
        self.reader = TextReader(tokenizer, **self.describe_reader())
        self.test_texts_in_train = overlap(data.splits)
        self.texts, self.numbers = {}, {}
        for name, table in self.tables.items():
            self.texts[name] = self.reader.encode(table.texts)
            self.numbers[name] = self.standardise(table.numbers)

    @cached_property
    def model(self):
        if self.config.mixer == "ridge":
            return build_model(**self.describe_model(), solution=self.ridge)
        return super().model

    @cached_property
    def ridge(self):
        """(w, b) of ridge regression on the numbers of the training rows."""
        return solve_ridge(self.flat_numbers("train"), self.targets("train"), ALPHA)

    def rival_rows(self, split):
        return self.tables[split].texts, self.targets(split), self.flat_numbers(split)

    def targets(self, split):
        """Standardised."""
        return ((self.tables[split].targets - self.mean) / self.deviation).astype(np.float32)

    def order(self, epoch):
        return np.arange(self.train_size) if self.config.unshuffled else super().order(epoch)

    @staticmethod
    def resolve(config):
        """One evaluation on the validation rows is all that a closed form needs of an epoch."""
        return dataclasses.replace(config, epochs=1) if config.mixer in SOLVED else config

    def batch(self, split, rows):
        batch = self.reader.batch(self.texts[split].take(rows))
        return batch | {"numbers": self.numbers[split][rows], "targets": self.targets(split)[rows]}

    def evaluate(self, split, predict, folder=None):
        """Errors in the data's own units; "loss" is squared and standardised, like the training's.

        The test split is also drawn, as predicted.png in `folder`.
        """
        true = self.tables[split].targets
        outputs = self.rival_answers(split) if self.is_rival else self.outputs(split, predict)
        predicted = outputs * self.deviation + self.mean
        if split == "test" and folder:
            baseline = ("ridge on the numbers", self.ridge_predictions("test"))
            path, target = folder / "predicted.png", self.data.columns.target
            figures.predicted_against_true(path, true, predicted, target, baseline)
        standardised = outputs - (true - self.mean) / self.deviation
        return {"loss": float(np.mean(standardised**2)), **errors(true, predicted)}

    def ridge_predictions(self, split):
        w, b = self.ridge
        return (self.flat_numbers(split) @ w + b) * self.deviation + self.mean

    def flat_numbers(self, split):
        """(N, columns x inputs)."""
        return self.numbers[split].reshape(len(self.numbers[split]), -1)

    def baselines(self):
        test = self.tables["test"].targets
        mean = errors(test, np.full(len(test), self.mean))
        return {"mean": mean, "ridge": errors(test, self.ridge_predictions("test"))}

    def summary(self):
        columns, test = self.data.columns, self.tables["test"].targets
        missing = sum(int(np.isnan(t.numbers).sum()) for t in self.tables.values())
        return {
            "train_examples": self.train_size,
            "val_examples": len(self.tables["val"]),
            "test_examples": len(test),
            "test_texts_in_train": self.test_texts_in_train,
            "text": columns.text,
            "numbers": ", ".join(columns.numbers),
            "target": columns.target,
            "missing_numbers": f"{missing:,}{REPLACED}" if self.standardise.flagged else missing,
            "rows_left_out": self.data.left_out,
            "vocabulary": self.vocab,
            **{
                f"{baseline}_{name}": value
                for baseline, measured in self.baselines().items()
                for name, value in measured.items()
            },
            **self.rival_settings(),
            **(self.pretrained.account if self.pretrained else {}),
        }

    def model_spec(self):
        return {
            "model": self.describe_model(),
            "text": self.describe_reader(),
            "columns": dataclasses.asdict(self.data.columns),
            "standardiser": dataclasses.asdict(self.standardise),
            "mean": self.mean,
            "deviation": self.deviation,
        }

    def describe_model(self):
        config = self.config
        if config.mixer in rivals.REGRESSORS:
            return {"kind": config.mixer}
        reader = "attention" if self.pretrained else config.mixer
        pooling = config.pooling or TUNED_POOLING.get(reader)
        return {
            **({"encoder": self.pretrained.encoder} if self.pretrained else {}),
            "kind": "regressor",
            "mixer": config.mixer,
            "vocab": self.vocab,
            "columns": len(self.data.columns.numbers),
            "inputs": self.standardise.inputs,
            "draw": config.attention_init,
            "pooling": None if pooling == "published" else pooling,
            **config.pick("width", "max_len", "heads", "dropout", "token_dropout"),
        }

    def describe_reader(self):
        unmasked = self.config.unmasked
        return {"max_len": self.config.max_len, "full": unmasked, "unmasked": unmasked}

    @staticmethod
    def predict(run, chosen):
        """Print a number for each row; with --write, beside the row's other columns."""
        columns = Columns(run.columns["text"], tuple(run.columns["numbers"]), None)
        rows, where = table_rows(chosen)

        def answer(chunk, start):
            table = read_table(chunk, where, columns, start)
            values = run.predict_columns(table.texts, table.numbers)
            return [{"predicted": float(f"{value:.6g}")} for value in values]

        write_answers(rows, answer, run.batch_size, columns.text, chosen["write"])


def errors(true, predicted):
    """MAE, MSE, RMSE and R², the fraction of the targets' variance that is explained."""
    squared = (predicted - true) ** 2
    spread = ((true - true.mean()) ** 2).sum()
    r2 = 1 - squared.sum() / spread if spread else float(not squared.any())
    return {
        "mae": float(np.abs(predicted - true).mean()),
        "mse": float(squared.mean()),
        "rmse": math.sqrt(squared.mean()),
        "r2": float(r2),
    }


if __name__ == "__main__":
    sys.exit(main(Multimodal))
