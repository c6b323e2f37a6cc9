"""Train a causal language model, and write text with it: python -m train.causal

Without arguments it learns to write Python's documentation, which is on every machine, with
summation in every layer but the last, which is attention. `--mixer all` trains that hybrid,
summation and attention under one budget. `--generate "prompt" --out RUN` continues a text with a
trained model.
"""

import dataclasses
import math
import sys

import numpy as np

from data.sets.language import DEFAULT, NAMES, WITH_VALIDATION, load_language
from data.windows import PackedWindows, RowWindows
from minisum import mixers
from minisum.errors import UserError
from minisum.models import language_model
from minisum.runs.reading import build_model
from minisum.text import batches, byte_tokens
from minisum.text.splits import overlap
from minisum.text.tokenizer import encode
from train import command_line
from train.run.options import LayerPattern, N, changed, option, recipes
from train.run.own_data import OwnTexts, of_name
from train.run.task import Task
from train.texts import tokenizer_of

MIXERS = ("summation", "attention", "hybrid", "all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalConfig(LayerPattern, OwnTexts):
    dataset: str = of_name(OwnTexts, DEFAULT, NAMES)
    limit_train: int = option(
        None, "train on N documents only, drawn at random; of running text, N lines", "data", **N
    )
    limit_test: int = option(None, "test on N documents only, drawn at random", "data", **N)
    first_rows: bool = option(
        False, "the limits keep the first documents, as first published, instead of a random draw; "
        "files are often sorted", "data",
    )  # fmt: skip
    text_column: str = option(None, "text column of --data", "data", metavar="NAME")
    skip_empty: bool = option(False, "leave out documents without text", "data")
    validation: float = changed(
        OwnTexts, "validation", 0.05, below=0.9,
        help="fraction of the training text held out to choose the epoch",
    )  # fmt: skip
    tokenizer: str = option(
        "bpe", "byte pairs learned from the training text, character, or hub:NAME for published "
        "byte pairs", "data", metavar="KIND",
    )  # fmt: skip
    vocab_size: int = changed(OwnTexts, "vocab_size", 8192, help="tokens of the vocabulary")
    rows: bool = option(
        False, "one padded row a text, cut to --max-len, instead of packed windows", "data"
    )
    sample: int = option(
        40, "tokens that the model writes after each epoch, for you to read; 0 for none", "running",
        at_least=0, at_most=10_000, metavar="N",
    )  # fmt: skip
    reset: bool = option(False, "restart memory and positions at each document", "data")

    mixer: str = option(
        "hybrid", "of all layers, with its options behind the name (simpletron:scale=mean); hybrid "
        "is summation, then attention last; all compares the first three", "model",
        choices=mixers.WithOptions((*MIXERS, *sorted({*mixers.names()} - {*MIXERS}))),
    )  # fmt: skip
    layers_pattern: str = option(
        None, 'layers one by one instead: "summation*3,attention", "projection*2,attention", where '
        "projection mixes nothing",
        "model", metavar="PATTERN",
    )  # fmt: skip
    layers: int = changed(OwnTexts, "layers", 4, help="layers of --mixer")
    heads: int = changed(OwnTexts, "heads", 8)
    d_ff: int = option(None, "width inside the token networks (default: --width)", "model", **N)
    positions: str = option(
        None, "use of positions (default: add if all layers are attention, else multiply)",
        "model", choices=language_model.POSITIONS,
    )  # fmt: skip
    position_offset: float = option(2.0, "added to positions that multiply", "model", metavar="X")
    sum_scale: str = option(
        "length", "divide the sums by --max-len, or leave them as published: none", "model",
        choices=language_model.SUM_SCALES,
    )  # fmt: skip
    norm: str = option(
        "after", "layer norm after or before, or rms: RMSNorm before", "model",
        choices=language_model.NORMS,
    )  # fmt: skip
    ffn: str = option("mlp", "token network of a layer", "model", choices=language_model.FFNS)
    feature_map: str = option(None, "features of linear_attention layers", "model", metavar="NAME")
    tied: bool = option(False, "score words by their embeddings", "model")
    dropout: float = option(0.0, "these models have none", "model", at_least=0, at_most=0)

    epochs: int = changed(OwnTexts, "epochs", 10, help="passes over the training text")
    batch_size: int = changed(OwnTexts, "batch_size", 8, help="windows per step")

    WITH_COLUMNS = ("text_column",)
    MORE_TOKENS = 1  # the separator of documents
    RECIPES = recipes("causal")

    def check(self, given=()):
        super().check(given)
        kinds = self.tokenizer in ("bpe", "character")
        if not (kinds or self.tokenizer.startswith(byte_tokens.HUB)):
            raise UserError(f"--tokenizer {self.tokenizer}: choose bpe, character or hub:NAME")
        self.check_pattern(given)
        if self.layers_pattern is not None:
            mixers.parse_pattern(self.layers_pattern)
        if self.feature_map and "linear_attention" not in self.pattern:
            raise UserError("--feature-map is for layers called linear_attention: there are none")
        if self.reset and self.rows:
            raise UserError("--reset has no meaning with --rows: each row is one document")
        if "validation" in given and self.data is None and self.dataset in WITH_VALIDATION:
            raise UserError(f"--validation: {self.dataset} has a validation split of its own")


class LanguageModelling(Task):
    """The language model as a task for train.loop. An example is a window of the text, or a row."""

    name = "causal"
    config_class = CausalConfig
    description = (
        "Train a causal language model: summation, attention, or a pattern of layers. With "
        "--generate PROMPT --out RUN, write text with a trained one (see --generate --help)."
    )
    metric = "perplexity"
    compared = MIXERS[:-1]
    report_metrics = ("perplexity", "bits_per_byte")
    higher_is_better = False

    @classmethod
    def load(cls, config, folder, resume):
        for mixer in MIXERS[:-1] if config.mixer == "all" else [config.mixer]:
            # An impossible model is refused before anything is read or written.
            build_model(**describe_model(dataclasses.replace(config, mixer=mixer), 1))
        sizes = config.pick("validation", "limit_train", "limit_test", "first_rows", "seed")
        source = config.source() | config.pick("text_column", "skip_empty")
        data = load_language(**source, **sizes, by_line=config.rows)
        texts, how = data.splits["train"], (byte_tokens.load, byte_tokens.make)
        return cls(config, data, tokenizer_of(config, folder, resume, texts, *how))

    def __init__(self, config, data, tokenizer):
        super().__init__(config, data, tokenizer)
        self.token_bytes = byte_tokens.lengths_of_tokens(tokenizer)
        self.windows = {split: self.cut(texts, split) for split, texts in data.splits.items()}
        self.test_texts_in_train = overlap(data.splits)
        self.train_size = len(self.windows["train"])

    def cut(self, texts, split):
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

    def batch(self, split, rows):
        return self.windows[split].take(rows)

    def tokens(self, batch):
        return int((batch["targets"] >= 0).sum())

    def evaluate(self, split, predict, folder=None):
        """Means over all targets of the split, each counting once, whatever its window."""
        nll = hits = targets = size = 0
        batch_means = []
        for rows in batches.batches(np.arange(len(self.windows[split])), self.config.batch_size):
            batch = self.batch(split, rows)
            counted = batch["targets"] >= 0
            scored = predict(batch)[counted].astype(np.float64)
            nll += scored[:, 0].sum()
            batch_means.append(scored[:, 0].mean())
            hits += scored[:, 1].sum()
            targets += int(counted.sum())
            size += int(self.token_bytes[batch["targets"][counted]].sum())
        found = measures(nll, hits, targets, size)
        # As first published: every batch counts the same, however little text is in it.
        return found | {"batch_perplexity": perplexity(np.mean(batch_means))}

    def sample(self, params):
        from minisum.runs.language_model import LanguageModelRun

        if self.config.rows or not self.config.sample:  # a row begins without a separator
            return None
        run = LanguageModelRun(self.model, params, self.tokenizer, self.model_spec())
        # No further than the training texts: some mixers end there.
        return run.generate(tokens=min(self.config.sample, self.config.max_len))

    def summary(self):
        sizes = {f"{split}_tokens": windows.targets for split, windows in self.windows.items()}
        mixer = self.config.layers_pattern or self.config.mixer
        sizes["test_texts_in_train"] = self.test_texts_in_train
        return {"mixer": mixer, "vocabulary": self.vocab, **sizes}

    def model_spec(self):
        text = self.config.pick("rows", "reset")
        return {"model": describe_model(self.config, self.vocab), "text": text}


def measures(nll, hits, targets, size):
    """From sums over targets: nll in nats, hits of the likeliest token, bytes of the targets.

    Bits per byte are the length of the encoded text, separators included, whatever the tokens:
    a model with longer tokens has fewer of them, which are harder to predict.
    """
    loss = nll / targets
    return {
        "loss": loss,
        "perplexity": perplexity(loss),
        "accuracy": hits / targets,
        "bits_per_byte": nll / math.log(2) / size,
    }


def perplexity(loss):
    return math.exp(min(loss, 700.0))


def describe_model(config, vocab):
    """What makes the model: arguments of minisum.runs.reading.build_model."""
    names = ("width", "max_len", "heads", "d_ff", "positions", "position_offset", "tied")
    names += ("sum_scale", "norm", "ffn")
    layers = config.pattern
    if config.feature_map:
        features = f"linear_attention:feature_map={config.feature_map}"
        layers = layers.replace("linear_attention", features)
    return {"kind": "language_model", "vocab": vocab, "layers": layers, **config.pick(*names)}


def main(arguments=None):
    """Train, or with --generate write text; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not any(word.partition("=")[0] == "--generate" for word in arguments):
        return command_line.main(LanguageModelling, arguments)
    from train import write

    return write.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
