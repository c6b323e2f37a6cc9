"""The settings of a text classifier, and the model that they stand for."""

import dataclasses

from data.sets.classification import DEFAULT, NAMES
from minisum import mixers
from minisum.errors import UserError
from minisum.models import classifier as models
from minisum.models.encoder import EncoderClassifier
from train.run.options import Config, option

LEARNING_RATES = {"summation": 3e-4, "attention": 1e-3, "mean_embedding": 3e-3}
EPOCHS, MOST_EPOCHS = 15, 100
LEAST_STEPS = 3000  # a small corpus is read more often, or nothing would be learned from it


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Config):
    dataset: str = option(DEFAULT, "corpus by name", "data", choices=NAMES)
    text_column: str = option(
        None, "its text column (guessed if obvious)", "data", type=str, metavar="NAME"
    )
    label_column: str = option(
        None, "its label column (guessed if obvious)", "data", type=str, metavar="NAME"
    )
    validation: float = option(
        0.05, "share of the training rows that chooses the epoch", "data", above=0, below=1,
        metavar="FRACTION",
    )  # fmt: skip
    drop_unknown: bool = option(False, "leave unknown words out instead of marking them", "data")
    padding: str = option(
        "right", "left: always to --max-len, keeping the last tokens", "data",
        choices=("right", "left"),
    )  # fmt: skip
    mixer: str = option(
        "summation",
        "how tokens are mixed: summation, attention or mean_embedding as published, all to compare "
        "these three, or in an encoder any of " + ", ".join(mixers.TABLE),
        "model", metavar="NAME", choices=sorted({"all", *models.MODELS, *mixers.TABLE}),
    )  # fmt: skip
    encoder: bool = option(
        False, "an encoder of pre-norm blocks, also where there is a published one-layer model; "
        "implied by --layers from 2 on and by every mixer that has none", "model",
    )  # fmt: skip
    layers: int = option(
        1, "mixing layers: 1 as published, more in an encoder", "model", at_least=1,
        at_most=2**10, metavar="N",
    )  # fmt: skip
    d_ff: int = option(
        None, "width of an encoder's token networks, 0 for none (default: 4 x width)", "model",
        type=int, at_least=0, at_most=2**18, metavar="N",
    )  # fmt: skip
    head_width: str = option(
        "split", "split the width among the heads, or give each the full one", "model",
        choices=("split", "full"),
    )  # fmt: skip
    pooling: str = option(
        None, "sum, mean or sum / sqrt(n) over the tokens (default: the mixer's own)", "model",
        type=str, choices=tuple(models.POOLING),
    )  # fmt: skip
    dropout: float = option(
        0.5, "share of a text's features that training forgets before the last layer", "model",
        at_least=0, below=1, metavar="RATE",
    )  # fmt: skip
    token_dropout: float = option(
        0.5, "share of tokens that training forgets", "model", at_least=0, below=1, metavar="RATE"
    )
    max_len: int = option(
        512, "tokens of a text that are read", "model", at_least=1, at_most=2**24, metavar="N"
    )
    epochs: int = option(
        None, f"passes over the training rows (default: 15, or enough for {LEAST_STEPS:,} steps)",
        type=int, at_least=1, metavar="N",
    )  # fmt: skip
    lr: float = option(
        None, "learning rate of Adam (default: 0.0003 for summation, 0.003 for mean_embedding, "
        "whose mean makes gradients small, else 0.001)", type=float, above=0, metavar="RATE",
    )  # fmt: skip
    ema: float = option(
        0.999, "validate and keep a running average of the parameters with this decay",
        at_least=0, below=1, metavar="DECAY",
    )  # fmt: skip
    unmasked: bool = option(False, "let padding into the pool, as first published", "model")

    recipe: str = option("default", "set of defaults", choices=("default", "published"))

    WITH_DATA = ("test_data", "text_column", "label_column")
    RECIPES = {
        "default": {},
        "published": {
            "lr": 1e-4, "epsilon": 1e-7, "clip_value": 1.0, "epochs": 20, "batch_size": 64,
            "dropout": 0.0, "token_dropout": 0.0, "ema": 0.0, "unmasked": True, "width": 256,
            "max_len": 256, "heads": 4, "head_width": "full", "vocab_size": 10_000,
            "drop_unknown": True, "padding": "left",
        },
    }  # fmt: skip

    def check(self, given=()):
        super().check(given)
        if self.is_encoder:
            self.check_encoder(given)
        elif self.d_ff is not None:
            raise UserError("--d-ff belongs to an encoder: add --encoder, or --layers 2 or more")
        uses_heads = self.is_encoder or self.mixer in ("attention", "all") or "heads" in given
        if uses_heads and self.head_width == "split" and self.width % self.heads:
            raise UserError(f"--heads {self.heads} does not divide --width {self.width}")

    @property
    def is_encoder(self):
        return self.encoder or self.layers > 1 or self.mixer not in (*models.MODELS, "all")

    def check_encoder(self, given):
        if self.mixer in ("all", "mean_embedding"):
            raise UserError(
                f"--mixer {self.mixer} has one-layer models only: leave out --encoder and --layers"
            )
        if "encoder" in given and not self.encoder:
            raise UserError(
                f"--no-encoder contradicts --mixer {self.mixer} --layers {self.layers}, "
                "which only an encoder has"
            )
        if self.head_width == "full" or self.unmasked:
            name = "--unmasked" if self.unmasked else "--head-width full"
            raise UserError(f"{name} belongs to the published one-layer models, not to an encoder")


def with_rate(config):
    """The learning rate filled in: each kind of model has its own scale of gradients."""
    rate = 1e-3 if config.is_encoder else LEARNING_RATES[config.mixer]
    return dataclasses.replace(config, lr=config.lr or rate)


def enough_epochs(config, rows):
    steps = -(-rows // config.batch_size)
    return min(MOST_EPOCHS, max(EPOCHS, -(-LEAST_STEPS // steps)))


def build_model(config, card):
    if config.is_encoder:
        return EncoderClassifier(
            config.mixer,
            vocab=card["vocab"],
            width=config.width,
            classes=len(card["class_names"]),
            max_len=config.max_len,
            encoder={"layers": config.layers, "heads": config.heads, "d_ff": config.d_ff},
            pooling=config.pooling,
            dropout=config.dropout,
            token_dropout=config.token_dropout,
        )
    return models.build(
        config.mixer,
        vocab=card["vocab"],
        width=config.width,
        classes=len(card["class_names"]),
        max_len=config.max_len,
        heads=config.heads,
        head_width=config.width if config.head_width == "full" else None,
        pooling=config.pooling,
        masked=not config.unmasked,
        dropout=config.dropout,
        token_dropout=config.token_dropout,
    )
