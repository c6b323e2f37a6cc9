"""Train a causal language model, and write text with it: python -m train.causal

Without arguments it learns to write Python's documentation, which is on every machine, with
cumulative summation in every layer. `--mixer all` trains summation, attention and the published
hybrid under one budget. `--generate "prompt" --out RUN` continues a text with a trained model.
"""

import copy
import dataclasses
import math
import sys
from functools import cached_property

import numpy as np

from data.sets.language import DEFAULT, NAMES, WITH_VALIDATION, load_language
from data.text import batches, byte_tokens
from data.text.tokenizer import encode, save_tokenizer
from data.text.windows import PackedWindows, RowWindows
from minisum.errors import UserError
from minisum.models import blocks, language_model
from train import command_line
from train.command_line import Command
from train.run.folder import TOKENIZER
from train.run.options import Config, option

MIXERS = ("summation", "attention", "hybrid", "all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalConfig(Config):
    dataset: str = option(DEFAULT, "corpus by name", "data", choices=NAMES)
    limit_train: int = option(
        None,
        "train on N documents only, drawn at random",
        "data",
        type=int,
        at_least=1,
        metavar="N",
    )
    limit_test: int = option(
        None, "test on N documents only, drawn at random", "data", type=int, at_least=1, metavar="N"
    )
    first_rows: bool = option(
        False, "the limits keep the first documents, as first published, of files that are often "
        "sorted; not a random draw", "data",
    )  # fmt: skip
    text_column: str = option(None, "text column of --data", "data", type=str, metavar="NAME")
    validation: float = option(
        0.05, "share of the training text that chooses the epoch", "data", above=0, below=0.9,
        metavar="FRACTION",
    )  # fmt: skip
    tokenizer: str = option(
        "bpe", "byte pairs learned from the training text, or hub:NAME for published ones", "data",
        metavar="KIND",
    )  # fmt: skip
    vocab_size: int = option(
        8192, "tokens of the vocabulary", "data", at_least=4, at_most=2**24, metavar="N"
    )  # fmt: skip
    rows: bool = option(
        False, "a padded row a text, cut to --max-len, instead of packed windows", "data"
    )
    reset: bool = option(False, "start memory and positions anew at each document", "data")

    mixer: str = option(
        "summation", "the layers; hybrid: summation, then attention last; all compares the three; "
        "for any other mixer see --layers-pattern", "model", choices=MIXERS,
    )  # fmt: skip
    layers_pattern: str = option(
        None, 'layers one by one instead: "summation*3,attention", "projection*2,attention"',
        "model", type=str, metavar="PATTERN",
    )  # fmt: skip
    layers: int = option(4, "layers of --mixer", "model", at_least=1, at_most=2**10, metavar="N")
    heads: int = option(8, "attention heads", "model", at_least=1, at_most=2**10, metavar="N")
    d_ff: int = option(
        None, "width inside the token networks (default: --width)", "model", type=int, at_least=1,
        metavar="N",
    )  # fmt: skip
    positions: str = option(
        None, "how positions enter (default: add if all layers are attention, else multiply)",
        "model", type=str, choices=language_model.POSITIONS,
    )  # fmt: skip
    sum_scale: str = option(
        "length", "divide the sums by --max-len, or leave them as published: none", "model",
        choices=language_model.SUM_SCALES,
    )  # fmt: skip
    tied: bool = option(False, "score words by their embeddings", "model")
    dropout: float = option(0.0, "these models have none", "model", at_least=0, at_most=0)

    recipe: str = option("default", "set of defaults", choices=("default", "published"))
    epochs: int = option(10, "passes over the training text", at_least=1, metavar="N")
    batch_size: int = option(8, "windows a step", at_least=1, metavar="N")

    WITH_DATA = ("test_data", "text_column")
    MORE_TOKENS = 1  # the separator of documents
    RECIPES = {
        "default": {},
        "published": {
            "lr": 1e-4, "epochs": 10, "batch_size": 8, "width": 512, "layers": 4, "heads": 8,
            "max_len": 256, "tokenizer": "hub:gpt2", "rows": True, "sum_scale": "none",
            "limit_train": 5000, "first_rows": True, "select": "last",
        },
    }  # fmt: skip

    def check(self, given=()):
        super().check(given)
        if self.tokenizer != "bpe" and not self.tokenizer.startswith(byte_tokens.HUB):
            raise UserError(f"--tokenizer {self.tokenizer}: choose bpe or hub:NAME")
        if self.layers_pattern is not None:
            for name in ("mixer", "layers"):
                if name in given:
                    raise UserError(f"--layers-pattern says it all: leave out --{name}")
            blocks.parse_pattern(self.layers_pattern)
        if self.reset and self.rows:
            raise UserError("--reset has no meaning with --rows: each row is one document")
        if "validation" in given and self.data is None and self.dataset in WITH_VALIDATION:
            raise UserError(f"--validation: {self.dataset} has a validation split of its own")

    @property
    def pattern(self):
        """The layers, first to last."""
        if self.layers_pattern is not None:
            return self.layers_pattern
        if self.mixer == "hybrid":
            return f"summation*{self.layers - 1},attention" if self.layers > 1 else "attention"
        return f"{self.mixer}*{self.layers}"


class LanguageModelling:
    """The language model as a task for train.loop. An example is a window of the text, or a row."""

    name = "causal"
    metric = "perplexity"
    rivals = MIXERS[:-1]
    shown = ("perplexity", "bits_per_byte")
    higher_is_better = False

    def __init__(self, config, data, tokenizer):
        self.config, self.tokenizer = config, tokenizer
        self.dataset, self.data_sha256 = data.name, data.sha256
        self.vocab = tokenizer.get_vocab_size()
        self.token_bytes = byte_tokens.lengths_of_tokens(tokenizer)
        self.windows = {split: self.cut(texts, split) for split, texts in data.splits.items()}
        self.train_size = len(self.windows["train"])

    @cached_property
    def model(self):
        return build_model(self.config, self.card())

    def cut(self, texts, split):
        """The windows or rows of `texts`."""
        encoded = batches.Ragged.from_list(encode(self.tokenizer, texts))
        batches.check_ids(encoded, self.vocab)
        n = self.config.max_len
        if self.config.rows:
            windows = RowWindows(encoded, n)
        else:
            separator = byte_tokens.separator_id(self.tokenizer)
            windows = PackedWindows(encoded, n, separator, self.config.reset)
        if not len(windows):
            raise UserError(f"the {split} part of {self.dataset} has no text to predict")
        return windows

    def order(self, epoch):
        return batches.epoch_order(self.train_size, self.config.seed, epoch)

    def train_batch(self, rows):
        return self.windows["train"].take(rows)

    def tokens(self, batch):
        return int((batch["targets"] >= 0).sum())

    def evaluate(self, split, predict):
        """Means over all targets of the split, each counting once, whatever its window."""
        surprise = hits = targets = size = 0
        batch_means = []
        for rows in batches.batches(np.arange(len(self.windows[split])), self.config.batch_size):
            batch = self.windows[split].take(rows)
            counted = batch["targets"] >= 0
            scored = predict(batch)[counted].astype(np.float64)
            surprise += scored[:, 0].sum()
            batch_means.append(scored[:, 0].mean())
            hits += scored[:, 1].sum()
            targets += int(counted.sum())
            size += int(self.token_bytes[batch["targets"][counted]].sum())
        found = measures(surprise, hits, targets, size)
        # As first published: every batch counts the same, however little text is in it.
        return found | {"batch_perplexity": perplexity(np.mean(batch_means))}

    def facts(self):
        sizes = {}
        for split, windows in self.windows.items():
            sizes[f"{split}_tokens"] = windows.targets
        return {"mixer": self.named_mixer(), "vocabulary": self.vocab, **sizes}

    def named_mixer(self):
        return self.config.layers_pattern or self.config.mixer

    def card(self):
        return {"vocab": self.vocab}

    def save(self, path):
        save_tokenizer(self.tokenizer, path / TOKENIZER)

    def with_mixer(self, mixer):
        """The same task, data and all, for another mixer."""
        other = copy.copy(self)
        other.config = dataclasses.replace(self.config, mixer=mixer)
        return other


def measures(surprise, hits, targets, size):
    """From sums over targets: nats of surprise, hits of the likeliest token, bytes that they spell.

    Bits per byte count what it takes to write the text down, separators included, whatever the
    tokens: a model with longer tokens has fewer, harder ones to predict.
    """
    loss = surprise / targets
    return {
        "loss": loss,
        "perplexity": perplexity(loss),
        "accuracy": hits / targets,
        "bits_per_byte": surprise / math.log(2) / size,
    }


def perplexity(loss):
    return math.exp(min(loss, 700.0))


def load(config, folder, resume):
    """The task of `config`. The tokenizer is made of the training text, or read when resuming."""
    for mixer in MIXERS[:-1] if config.mixer == "all" else [config.mixer]:
        # A model that cannot be is refused before anything is read or written.
        build_model(dataclasses.replace(config, mixer=mixer), {"vocab": 1})
    data = load_language(
        dataset=config.dataset,
        data_file=config.data,
        test_file=config.test_data,
        text_column=config.text_column,
        by_line=config.rows,
        validation=config.validation,
        limit_train=config.limit_train,
        limit_test=config.limit_test,
        first_rows=config.first_rows,
        seed=config.seed,
    )
    path = folder.tokenizer
    if resume and path.exists():
        tokenizer = byte_tokens.load(path)
    else:
        tokenizer = byte_tokens.make(data.splits["train"], config.tokenizer, config.vocab_size)
    return LanguageModelling(config, data, tokenizer)


def build_model(config, card):
    return language_model.LanguageModel(
        vocab=card["vocab"],
        width=config.width,
        layers=config.pattern,
        max_len=config.max_len,
        heads=config.heads,
        d_ff=config.d_ff,
        positions=config.positions,
        tied=config.tied,
        sum_scale=config.sum_scale,
    )


COMMAND = Command(
    task="causal",
    description=(
        "Train a causal language model: summation, attention, or a pattern of layers. With "
        "--generate PROMPT --out RUN, write text with a trained one (see --generate --help)."
    ),
    config_class=CausalConfig,
    load=load,
)


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if any(word.partition("=")[0] == "--generate" for word in arguments):
        from train.generate import main as generate

        asks_for_help = {"-h", "--help"} & set(arguments)  # with a prompt or without
        return generate(["--help"] if asks_for_help else arguments)
    return command_line.main(COMMAND, arguments)


if __name__ == "__main__":
    sys.exit(main())
