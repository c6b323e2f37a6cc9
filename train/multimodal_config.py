"""The settings of a regressor of text and numbers, and the model that they stand for."""

import dataclasses

from data.sets.multimodal import DEFAULT, NAMES, Standardiser
from minisum.errors import UserError
from minisum.models import multimodal as models
from minisum.models.classifier import POOLING
from train.run.options import Config, file_path, flag, option, utf8

TUNED_POOLING = {"summation": "sqrt", "words": "sqrt", "attention": "mean"}
# What a closed-form solution has no use for.
TRAINING = ("epochs", "lr", "schedule", "warmup", "weight_decay", "ema", "patience", "plateau")


def names(text):
    """a,b,c -> (a, b, c)"""
    return tuple(name.strip() for name in utf8(text).split(",") if name.strip())


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultimodalConfig(Config):
    dataset: str = option(DEFAULT, "table by name", "data", choices=NAMES)
    data: str = option(
        None, "table from your own file: csv, tsv, jsonl or parquet", "data",
        type=file_path, metavar="FILE",
    )  # fmt: skip
    text_column: str = option(None, "the column of texts", "data", type=str, metavar="NAME")
    numeric_columns: tuple = option(
        None,
        "columns of numbers, standardised on the training rows; a missing value (empty, null, NaN) "
        "becomes the column's mean, with a second input that says it was missing", "data",
        type=names, metavar="A,B,C",
    )  # fmt: skip
    target: str = option(
        None, "the column to predict; rows without it are left out", "data", type=str,
        metavar="NAME",
    )  # fmt: skip
    limit_train: int = option(
        None, "train on N rows only, drawn at random", "data", type=int, at_least=1, metavar="N"
    )
    limit_test: int = option(
        None, "test on N rows only, drawn at random", "data", type=int, at_least=1, metavar="N"
    )
    vocab_size: int = option(
        5000, "most frequent tokens kept", "data", at_least=4, at_most=2**24, metavar="N"
    )  # fmt: skip
    mixer: str = option(
        "summation",
        "summation with one shared channel; attention and concatenation; words: summation without "
        "the numbers; ridge: the numbers without words, solved; all compares them", "model",
        choices=(*models.MIXERS, "all"),
    )  # fmt: skip
    layers: int = option(
        1, "mixing layers; these models have one", "model", at_least=1, at_most=1, metavar="N"
    )
    width: int = option(128, "width of the model", "model", at_least=1, at_most=2**16, metavar="N")
    max_len: int = option(
        300, "tokens of a text that are read", "model", at_least=1, at_most=2**24, metavar="N"
    )
    pooling: str = option(
        None,
        "sum, mean or sum / sqrt(n) over the tokens (default: sqrt for summation, mean for "
        "attention; published: sum for summation, mean for attention)", "model", type=str,
        choices=(*POOLING, "published"),
    )  # fmt: skip
    unmasked: bool = option(
        False, "pad to --max-len and read the padding as words, as first published", "model"
    )
    dropout: float = option(0.2, "dropout rate", "model", at_least=0, below=1, metavar="RATE")
    token_dropout: float = option(
        0.0, "share of the tokens forgotten in training", "model", at_least=0, below=1,
        metavar="RATE",
    )  # fmt: skip

    unshuffled: bool = option(False, "the same order of rows in every epoch, as first published")
    recipe: str = option("default", "set of defaults", choices=("default", "published"))
    epochs: int = option(30, "passes over the training rows", at_least=1, metavar="N")
    lr: float = option(2e-4, "learning rate of Adam", above=0, metavar="RATE")
    ema: float = option(
        0.99, "validate and keep a running average of the parameters with this decay",
        at_least=0, below=1, metavar="DECAY",
    )  # fmt: skip
    patience: int = option(
        5, "stop after N epochs without a new best", type=int, at_least=1, metavar="N"
    )
    plateau: int = option(
        3, "halve the rate after N epochs without a best", type=int, at_least=1, metavar="N"
    )

    WITH_DATA = ("test_data",)
    RECIPES = {
        "default": {},
        "published": {
            "lr": 1e-4, "epsilon": 1e-7, "ema": 0.0, "epochs": 30, "batch_size": 64, "dropout": 0.2,
            "token_dropout": 0.0, "pooling": "published", "width": 256, "max_len": 300, "heads": 4,
            "vocab_size": 5000, "patience": 5, "plateau": 3, "validation": 0.25,
            "limit_train": 8000, "limit_test": 2000, "unmasked": True, "unshuffled": True,
        },
    }  # fmt: skip

    def __post_init__(self):
        if isinstance(self.numeric_columns, list):  # as config.json has it
            object.__setattr__(self, "numeric_columns", tuple(self.numeric_columns))

    def check(self, given=()):
        super().check(given)
        uses_heads = self.mixer in ("attention", "all") or "heads" in given
        if uses_heads and self.width % self.heads:
            raise UserError(f"--heads {self.heads} does not divide --width {self.width}")
        for name in TRAINING if self.mixer == "ridge" else ():
            if name in given:
                raise UserError(f"{flag(name)}: --mixer ridge is solved, not trained")


def build_model(config, card, solution=None):
    pooling = config.pooling or TUNED_POOLING.get(config.mixer)
    return models.build(
        config.mixer,
        vocab=card["vocab"],
        width=config.width,
        columns=len(card["columns"]["numbers"]),
        max_len=config.max_len,
        inputs=Standardiser(**card["standardiser"]).inputs,
        heads=config.heads,
        solution=solution,
        pooling=None if pooling == "published" else pooling,
        dropout=config.dropout,
        token_dropout=config.token_dropout,
    )


def settle(config):
    """One look at the validation rows is all that a closed form needs of an epoch."""
    return dataclasses.replace(config, epochs=1) if config.mixer == "ridge" else config
