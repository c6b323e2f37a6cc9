"""A text classifier fitted in memory, with scikit-learn's interface but without scikit-learn.

    clf = minisum.TextClassifier().fit(texts, labels)
    clf.predict(["..."])

get_params, set_params, clone, pipelines and cross-validation work as for its own estimators.
"""

import hashlib
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from minisum import checkpoint, files
from minisum.errors import UserError, require_known
from minisum.models.bag import rows_for
from minisum.models.classifier import MODELS
from minisum.params import Params
from minisum.runs.classifier import ClassifierRun, several
from minisum.runs.explanation import Explanation, softmax
from minisum.runs.fitting import fit
from minisum.runs.reading import build_model, read_model
from minisum.shards import Shards
from minisum.text.splits import hold_out
from minisum.text.tokenizer import TextReader, save_tokenizer, train_tokenizer

LEARNING_RATES = {"summation": 3e-4, "attention": 1e-3, "mean_embedding": 3e-3}
EPOCHS, MOST_EPOCHS = 8, 100
LEAST_STEPS = 3000  # a small corpus is read more often, or nothing would be learned from it


class TextClassifier:
    """A classifier of texts; its parameters are the flags of `python -m train.classifier`.

    mixer: summation, attention or mean_embedding as published, or any of minisum.mixers in an
    encoder, options behind the name ("simpletron:scale=mean"); with `encoder`, options or `layers`
    of 2 or more the published two are encoders too. tokenizer: see `train_tokenizer`.
    epochs, lr: None is the command's default. validation: the fraction of the texts that is held
    out to choose the epoch; without any (0, or too few texts) the last epoch is kept.

    After `fit`: classes_ (sorted), history_ (one record per epoch), run_ (see `minisum.load`).
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        mixer: str = "summation",
        *,
        width: int = 256,
        layers: int = 1,
        heads: int = 4,
        d_ff: int | None = None,
        encoder: bool = False,
        pooling: str | None = None,
        dropout: float = 0.5,
        token_dropout: float = 0.5,
        max_len: int = 512,
        bag_rows: int = 0,
        tokenizer: str = "wordpunct",
        vocab_size: int = 80_000,
        validation: float = 0.05,
        epochs: int | None = None,
        batch_size: int = 64,
        lr: float | None = None,
        ema: float = 0.999,
        patience: int = 10,
        seed: int = 0,
        backend: str = "numpy",
        threads: int | None = None,
    ):
        self.mixer, self.width, self.layers, self.heads = mixer, width, layers, heads
        self.d_ff, self.encoder, self.pooling = d_ff, encoder, pooling
        self.dropout, self.token_dropout, self.max_len = dropout, token_dropout, max_len
        self.tokenizer, self.vocab_size, self.validation = tokenizer, vocab_size, validation
        self.bag_rows = bag_rows
        self.epochs, self.batch_size, self.lr, self.ema = epochs, batch_size, lr, ema
        self.patience, self.seed, self.backend, self.threads = patience, seed, backend, threads

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name."""
        return {name: getattr(self, name) for name in parameters()}

    def set_params(self, **params: Any) -> "TextClassifier":
        """Change parameters; UserError for a name that is none."""
        for name, value in params.items():
            require_known("parameter", name, parameters())
            setattr(self, name, value)
        return self

    def fit(self, X: Iterable[str], y: Iterable[Any]) -> "TextClassifier":
        """Train on texts X with labels y, of any type that can be sorted."""
        texts, labels = several(X), np.asarray(y)
        if labels.shape != (len(texts),):
            raise UserError(f"{len(texts)} texts need as many labels, not {labels.shape}")
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise UserError("at least two classes are needed")
        try:
            train, held = hold_out(texts, numbers, self.validation, f"validation {self.seed}")
        except UserError:  # too few
            train, held = np.arange(len(texts)), np.arange(0)
        words = train_tokenizer([texts[i] for i in train], self.tokenizer, self.vocab_size)
        reader = TextReader(words, self.max_len)
        encoded, targets = reader.encode(texts), numbers.astype(np.int32)
        bag_rows = rows_for(self.bag_rows, encoded.take(train).offsets[-1])
        spec: dict[str, Any] = {
            "task": "classifier",
            "model": self._model(words.get_vocab_size(), len(classes), bag_rows),
            "text": {"max_len": self.max_len},
            "class_names": classes.tolist(),
        }
        model = build_model(**spec["model"])
        kind = self.mixer if spec["model"]["kind"] == "classifier" else "encoder"

        def batch_of(rows: np.ndarray) -> dict[str, np.ndarray]:
            return reader.batch(encoded.take(train[rows])) | {"targets": targets[train[rows]]}

        def accuracy(params: Params, shards: Shards) -> tuple[float, float]:
            run = ClassifierRun(model, params, words, spec)
            run.shards, run.batch_size = shards, self.batch_size
            logits, own = run.logits_of(encoded.take(held)), targets[held]
            losses = -np.log(softmax(logits)[np.arange(len(held)), own])
            return float((logits.argmax(axis=1) == own).mean()), float(losses.mean())

        params, self.history_ = fit(
            model,
            len(train),
            batch_of,
            accuracy if len(held) else None,
            epochs=self.epochs or enough_epochs(len(train), self.batch_size),
            lr=self.lr or learning_rate(kind),
            batch_size=self.batch_size,
            ema=self.ema,
            patience=self.patience,
            seed=self.seed,
            threads=self.threads,
            backend_name=self.backend,
        )
        self._keep(ClassifierRun(model, params, words, spec, batch_size=self.batch_size))
        return self

    def _model(self, vocab: int, classes: int, bag_rows: int) -> dict[str, Any]:
        """Arguments of `build_model`."""
        names = ("mixer", "width", "max_len", "pooling", "dropout", "token_dropout")
        sizes: dict[str, Any] = {name: getattr(self, name) for name in names}
        sizes |= {"vocab": vocab, "classes": classes, "bag_rows": bag_rows}
        if self.encoder or self.layers > 1 or self.mixer not in MODELS:
            encoder = {"layers": self.layers, "heads": self.heads, "d_ff": self.d_ff}
            return {"kind": "encoder_classifier", "encoder": encoder, **sizes}
        return {"kind": "classifier", "heads": self.heads, **sizes}

    def _keep(self, run: ClassifierRun) -> None:
        self.run_ = run
        self.classes_ = np.array(run.classes)

    @property
    def _run(self) -> ClassifierRun:
        if not self.__sklearn_is_fitted__():
            raise not_fitted()("the classifier has not been fitted yet: call fit(texts, labels)")
        return self.run_

    def predict(self, X: Iterable[str]) -> np.ndarray:
        """(N,): the likeliest class of each text."""
        chosen = self._run.logits(X).argmax(axis=1)
        return self.classes_[chosen]

    def predict_proba(self, X: Iterable[str]) -> np.ndarray:
        """(N, C): the probability of each class, in the order of classes_."""
        return self._run.predict_proba(X)

    def explain(self, text: str) -> Explanation:
        """What each token of a text adds to the decision, exactly."""
        return self._run.explain(text)

    def score(self, X: Iterable[str], y: Iterable[Any]) -> float:
        """Accuracy."""
        return float((self.predict(X) == np.asarray(y)).mean())

    def save(self, path: str | Path) -> None:
        """Write what `load`, `minisum.load` and --predict read. UserError over a training run."""
        run, folder = self._run, Path(path)
        if (folder / "result.json").exists() or (folder / "last.safetensors").exists():
            raise UserError(f"{folder} holds a training run: choose another folder")
        files.make_folder(folder)
        save_tokenizer(run.tokenizer, folder / checkpoint.TOKENIZER)
        digest = hashlib.sha256((folder / checkpoint.TOKENIZER).read_bytes()).hexdigest()
        config = {"format": checkpoint.FORMAT, "task": run.task, **self.get_params()}
        files.write_json(folder / "config.json", config, sealed=True)
        files.write_lines(folder / "metrics.jsonl", getattr(self, "history_", []))
        spec = {name: value for name, value in run.spec.items() if name != "task"}
        meta = {"task": run.task, "model_spec": spec, "origin": {"tokenizer": digest}}
        checkpoint.save(folder / checkpoint.BEST, run.params.to_host(), meta)

    @classmethod
    def load(cls, path: str | Path) -> "TextClassifier":
        """The fitted classifier in a folder that `save` or `python -m train.classifier` wrote."""
        model, params, words, spec = read_model(path, "classifier")
        stored = files.read_json(Path(path) / "config.json")
        found = cls(**{name: stored[name] for name in parameters() if name in stored})
        found._keep(ClassifierRun(model, params, words, spec, batch_size=found.batch_size))
        return found

    def __repr__(self) -> str:
        changed = {n: v for n, v in self.get_params().items() if v != parameters()[n].default}
        return f"TextClassifier({', '.join(f'{n}={v!r}' for n, v in changed.items())})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "run_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn, the only caller, asks: a classifier of one-dimensional text."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True),
        )


def parameters() -> dict[str, inspect.Parameter]:
    """The parameters of a TextClassifier, by name."""
    return dict(inspect.signature(TextClassifier).parameters)


def not_fitted() -> type[UserError]:
    """What predicting before fitting raises: scikit-learn's own error too, where it is loaded."""
    if (library := sys.modules.get("sklearn.exceptions")) is None:
        return UserError
    return type("NotFittedError", (UserError, library.NotFittedError), {})


def learning_rate(mixer: str) -> float:
    """Each kind of model has its own scale of gradients; "encoder" is that of any encoder."""
    return LEARNING_RATES.get(mixer, 1e-3)


def enough_epochs(rows: int, batch_size: int) -> int:
    steps = -(-rows // batch_size)
    return min(MOST_EPOCHS, max(EPOCHS, -(-LEAST_STEPS // steps)))
