"""Train a text classifier: python -m train.classifier

Without arguments it learns to classify the docstrings of Python's standard library by
package: text that is on every machine. `--mixer all` trains direct summation and the models it
is compared with under one budget.

There are two kinds of models. `summation`, `attention` and `mean_embedding` are the published ones
of one layer (minisum.models.classifier). Any other mixer, or `--layers` from 2 on, or `--encoder`
asks for an encoder: pre-norm blocks around the mixer, then the mean over the tokens
(minisum.models.encoder).
"""

import dataclasses
import sys

import numpy as np

from data.sets.classification import DEFAULT, NAMES, load_classification
from minisum import mixers
from minisum.errors import UserError
from minisum.models import classifier as models
from minisum.text.splits import overlap
from minisum.text.tokenizer import TextReader
from train import rivals
from train.command_line import main
from train.run.options import D_FF, POSITIVE, RATE, N, changed, option, recipes, refuse
from train.run.own_data import InitConfig, OwnTexts, of_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig(InitConfig):
    dataset: str = of_name(OwnTexts, DEFAULT, NAMES)
    text_column: str = option(None, "text column of --data, else guessed", "data", metavar="NAME")
    label_column: str = option(None, "label column of --data, else guessed", "data", metavar="NAME")
    skip_empty: bool = option(False, "leave out rows without a text or a label", "data")
    validation: float = changed(OwnTexts, "validation", 0.05)
    drop_unknown: bool = option(False, "leave out unknown words instead of marking them", "data")
    padding: str = option(
        "right", "left: always to --max-len, keeping the last tokens", "data",
        choices=("right", "left"),
    )  # fmt: skip
    mixer: str = option(
        "summation",
        "how tokens are mixed: summation, attention or mean_embedding as published, all to compare "
        "these three; in an encoder any of " + ", ".join(mixers.TABLE) + ", with its options "
        "behind the name (simpletron:output=True:scale=mean); or a linear classifier of "
        "scikit-learn on n-grams, svm or naive_bayes, which all compares too",
        "model", metavar="NAME",
        choices=mixers.WithOptions(
            sorted({"all", *models.MODELS, *mixers.TABLE, *rivals.CLASSIFIERS})
        ),
    )  # fmt: skip
    encoder: bool = option(
        False, "an encoder of pre-norm blocks, also for mixers with a published one-layer model; "
        "implied by --layers 2 or more, by options, and by all other mixers", "model",
    )  # fmt: skip
    layers: int = changed(
        OwnTexts, "layers", 1, help="mixing layers: 1 as published, more in an encoder"
    )
    d_ff: int = option(
        None, "width of an encoder's token networks, 0 for none (default: 4 x width)", "model",
        **D_FF,
    )  # fmt: skip
    head_width: str = option(
        "split", "split the width among the heads, or give each the full one", "model",
        choices=("split", "full"),
    )  # fmt: skip
    positions: str = option(
        None, "use of positions (default: multiply for summation, add for attention)", "model",
        choices=models.POSITIONS,
    )  # fmt: skip
    position_offset: float = option(1.0, "added to positions that multiply", "model", metavar="X")
    bag_rows: int = option(
        0, "also train a linear classifier on words and pairs of words, and add its logits; "
        "pairs are hashed into N rows (fewer if the texts are few)", "model",
        at_least=0, at_most=2**26, metavar="N",
    )  # fmt: skip
    one_logit: bool = option(False, "two classes share one logit, as first published", "model")
    pooling: str = option(
        None, "sum, mean or sum / sqrt(n) over the tokens (default: the mixer's own), or a "
        "pretrained encoder's first token", "model", choices=(*models.POOLING, "first"),
    )  # fmt: skip
    dropout: float = option(0.5, "dropout rate before the last layer", "model", **RATE)
    token_dropout: float = option(0.5, "dropout rate of whole tokens", "model", **RATE)
    tokenizer: str = changed(OwnTexts, "tokenizer", "wordpunct")
    vocab_size: int = changed(OwnTexts, "vocab_size", 80_000)
    max_len: int = changed(OwnTexts, "max_len", 512)
    epochs: int = option(
        None, "passes over the training rows (default: 8, or up to 100, as many as make 3,000 "
        "steps)", **N,
    )  # fmt: skip
    lr: float = option(
        None, "learning rate of Adam (default: 0.0003 for summation, 0.003 for mean_embedding, "
        "whose mean makes gradients small, else 0.001)", **POSITIVE,
    )  # fmt: skip
    ema: float = changed(OwnTexts, "ema", 0.999)
    patience: int = changed(OwnTexts, "patience", 10)
    calibrate: bool = option(
        False, "after training, fit a temperature on the validation rows, so that probabilities "
        "match how often predictions are right",
    )  # fmt: skip
    unmasked: bool = option(False, "pool over the padding too, as first published", "model")

    WITH_COLUMNS = ("text_column", "label_column")
    RECIPES = recipes("classifier")
    DECIDED = (*InitConfig.DECIDED, "layers", "d_ff", "padding", "drop_unknown", "encoder")

    def check(self, given=()):
        super().check(given)
        if self.calibrate and self.select == "test":
            raise UserError("--calibrate needs validation rows, and --select test leaves none")
        if self.mixer in rivals.CLASSIFIERS:
            rivals.require()
        if self.pooling == "first" and self.init_from is None:
            raise UserError("--pooling first belongs to the encoders of --init-from")
        if self.is_encoder:
            self.check_encoder(given)
        elif self.d_ff is not None:
            raise UserError("--d-ff belongs to an encoder: add --encoder, or --layers 2 or more")
        uses_heads = self.is_encoder or self.mixer in ("attention", "all") or "heads" in given
        if uses_heads and self.head_width == "split":
            self.check_heads()
        if self.is_encoder:
            from minisum.models.encoder import Encoder

            Encoder(self.mixer, self.width, 1, self.max_len, self.heads)  # if it can be built

    @property
    def is_encoder(self):
        one_layer = self.mixer in (*models.MODELS, *rivals.CLASSIFIERS, "all")
        return bool(self.encoder or self.layers > 1 or not one_layer or self.init_from)

    def check_encoder(self, given):
        if self.mixer in ("all", "mean_embedding", *rivals.CLASSIFIERS):
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
        one_layer = ("attention_init", "positions", "position_offset")
        refuse(one_layer, given, "it belongs to the one-layer models, not to an encoder")


class Classification(rivals.WithRivals):
    name = "classifier"
    config_class = ClassifierConfig
    description = "Train a text classifier by direct summation, or with another mixer."
    metric = "accuracy"
    models, rivals, untrained = models.MODELS, rivals.CLASSIFIERS, tuple(rivals.CLASSIFIERS)
    report_metrics = ("accuracy", "macro_f1")
    predict_flags = ("data", "separator", "encoding", "text_column", "format", "write", "top_k")
    predict_help = (
        "print the class of each text in standard input or in --data FILE: a text a line, or a "
        "table (csv, tsv, jsonl, parquet), whose other columns are kept"
    )
    higher_is_better = True

    @classmethod
    def load(cls, config, folder, resume):
        from minisum.runs.estimator import enough_epochs
        from train.texts import texts_of

        data = load_data(config)
        train = data.splits["train"]
        config, words, pretrained = texts_of(config, folder, resume, train.texts)
        epochs = config.epochs or enough_epochs(len(train), config.batch_size)
        config = dataclasses.replace(config, epochs=epochs)
        config = config if config.mixer == "all" else cls.resolve(config)
        return cls(config, data, words, pretrained)

    def __init__(self, config, data, tokenizer, pretrained=None):
        from minisum.models.bag import rows_for

        super().__init__(config, data, tokenizer, pretrained)
        self.data = data
        self.reader = TextReader(tokenizer, **describe_reader(config))
        self.texts = {s: self.reader.encode(part.texts) for s, part in data.splits.items()}
        self.labels = {split: part.labels for split, part in data.splits.items()}
        self.train_size = len(self.labels["train"])
        self.temperature, self.details = 1.0, {"class_names": data.class_names}
        self.test_texts_in_train = overlap(data.splits)
        self.bag_rows = rows_for(config.bag_rows, self.texts["train"].offsets[-1])

    def rival_rows(self, split):
        return self.data.splits[split].texts, self.labels[split]

    @staticmethod
    def resolve(config):
        """The learning rate filled in: each kind of model has its own scale of gradients."""
        from minisum.runs.estimator import learning_rate

        if config.mixer in rivals.CLASSIFIERS:
            return dataclasses.replace(config, lr=config.lr or 1.0, epochs=1)
        rate = learning_rate("encoder" if config.is_encoder else config.mixer)
        return dataclasses.replace(config, lr=config.lr or rate)

    def batch(self, split, rows):
        batch = self.reader.batch(self.texts[split].take(rows))
        return {**batch, "targets": self.labels[split][rows]}

    def evaluate(self, split, predict, folder=None):
        labels = self.labels[split]

        def judge(logits, rows):  # of many classes, the logits of a whole split would not fit
            logits = logits / self.temperature
            top, own = logits.max(axis=1), logits[np.arange(len(rows)), labels[rows]]
            normaliser = np.log(np.exp(logits - top[:, None]).sum(axis=1))
            return np.stack([top - own + normaliser, logits.argmax(axis=1), -normaliser], axis=1)

        if self.is_rival:
            metrics, chosen = {}, self.rival_answers(split)
        else:
            losses, chosen, logs = self.outputs(split, predict, judge).T
            metrics, chosen = {"loss": float(losses.mean())}, chosen.astype(int)
        found = metrics | {
            "accuracy": float((chosen == labels).mean()),
            "macro_f1": macro_f1(chosen, labels, len(self.data.class_names)),
        }
        if folder and not self.is_rival:
            from train.run import scores

            texts, names = self.data.splits[split].texts, self.data.class_names
            found["calibration_error"] = scores.report(
                folder, chosen, np.exp(logs), labels, texts, names
            )
        return found

    def draw(self, folder):
        from train.run import scores

        if not self.is_rival:
            scores.draw(folder)

    def fit_after(self, predict):
        if self.config.calibrate:
            from train.run.scores import fit_temperature as fit

            self.temperature = fit(self.outputs("val", predict), self.labels["val"])
            self.details["temperature"] = self.temperature
        return self.config.calibrate

    def baselines(self):
        return {"majority class": {"accuracy": self.majority_accuracy()}}

    def majority_accuracy(self):
        counts = np.bincount(self.labels["train"], minlength=len(self.data.class_names))
        return float((self.labels["test"] == counts.argmax()).mean())

    def summary(self):
        return {
            "train_examples": self.train_size,
            "val_examples": len(self.labels["val"]),
            "test_examples": len(self.labels["test"]),
            "test_texts_in_train": self.test_texts_in_train,
            "rows_left_out": self.data.left_out,
            "classes": len(self.data.class_names),
            "vocabulary": self.vocab,
            "majority_accuracy": self.majority_accuracy(),
            **self.rival_settings(),
            **(self.pretrained.account if self.pretrained else {}),
        }

    def model_spec(self):
        names = self.data.class_names
        if self.is_rival:
            return {"model": {"kind": self.config.mixer}, "class_names": names}
        sizes = self.vocab, len(names), self.bag_rows
        return {
            "model": describe_model(self.config, *sizes, self.pretrained),
            "text": describe_reader(self.config),
            "class_names": names,
            "columns": self.data.columns,
            "temperature": self.temperature,
        }

    @staticmethod
    def predict(run, chosen):
        from train.run.answers import answer_texts

        answer_texts(run, chosen)


def load_data(config):
    columns = config.pick("text_column", "label_column", "skip_empty")
    return load_classification(**config.source(), **columns, **config.split())


def describe_model(config, vocab, classes, bag_rows, pretrained=None):
    """What makes the model: arguments of minisum.runs.reading.build_model."""
    sizes = {"mixer": config.mixer, "vocab": vocab, "classes": classes, "bag_rows": bag_rows}
    sizes |= config.pick("width", "max_len", "pooling", "dropout", "token_dropout", "one_logit")
    if pretrained:
        return {"kind": "bert_classifier", "encoder": pretrained.encoder, **sizes}
    if config.is_encoder:
        encoder = config.pick("layers", "heads", "d_ff")
        return {"kind": "encoder_classifier", "encoder": encoder, **sizes}
    head_width = config.width if config.head_width == "full" else None
    attention = {"heads": config.heads, "head_width": head_width, "draw": config.attention_init}
    sizes |= config.pick("positions", "position_offset")
    return {"kind": "classifier", "masked": not config.unmasked, **attention, **sizes}


def describe_reader(config):
    """How texts are read: arguments of TextReader."""
    return config.pick("max_len", "padding", "drop_unknown") | {"full": config.padding == "left"}


def macro_f1(chosen, labels, classes):
    """The mean of 2 TP / (2 TP + FP + FN) over the classes that occur in either."""
    hits = np.bincount(labels[chosen == labels], minlength=classes)
    occurrences = np.bincount(labels, minlength=classes) + np.bincount(chosen, minlength=classes)
    occurring = occurrences > 0
    return float((2 * hits[occurring] / occurrences[occurring]).mean())


if __name__ == "__main__":
    sys.exit(main(Classification))
