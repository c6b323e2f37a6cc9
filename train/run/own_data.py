"""Settings of a task that reads data: a set by its name, any of the hub's, or one's own files."""

import dataclasses

from minisum.errors import UserError, require_known
from minisum.text.tokenizer import KINDS, least_vocabulary
from train.run.options import (
    FILE,
    LENGTH,
    NAME,
    RECIPES,
    Config,
    N,
    changed,
    file_path,
    flag,
    option,
    refuse,
)

VOCABULARY = N | {"at_least": 4, "at_most": 2**24}
FRACTION = {"above": 0, "below": 1, "metavar": "FRACTION"}


def of_name(config_class, default, names, what="corpus"):
    """The option --dataset with the named sets, beside which any of the hub's can be called."""
    told = f"{what} by name: {', '.join(names)}; or any of the hub's, USER/NAME or USER/NAME:CONFIG"
    return changed(config_class, "dataset", default, help=told, named=names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnData(Config):
    """The settings of every task."""

    separator: str = option(
        None, "separator of cells in --data: ; or tab (default: by the suffix)", "data",
        metavar="CHARACTER",
    )  # fmt: skip
    encoding: str = option(None, "encoding of --data, as cp1252 (default: utf-8)", "data", **NAME)

    # Flags that mean nothing without --data FILE, and those that any set of the hub has too.
    WITH_FILE, WITH_COLUMNS = ("separator", "encoding"), ()

    def check(self, given=()):
        super().check(given)
        of_hub = "/" in self.dataset
        if not of_hub:
            require_known("--dataset", self.dataset, type(self).dataset_names())
        for name in (*self.WITH_FILE, *(() if of_hub else self.WITH_COLUMNS)):
            if self.data is None and getattr(self, name) is not None:
                raise UserError(f"{flag(name)} belongs to --data FILE, which is not given")

    @classmethod
    def dataset_names(cls):
        return cls.__dataclass_fields__["dataset"].metadata["named"]

    def source(self):
        return super().source() | self.pick("separator", "encoding")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnTexts(OwnData):
    """The settings of a task that reads texts."""

    test_data: str = option(None, "test rows for --data (else cut from it)", "data", **FILE)
    val_data: str = option(None, "validation rows for --data (else cut from it)", "data", **FILE)
    validation: float = option(
        0.1, "fraction of the training rows held out to choose the epoch", "data", **FRACTION
    )
    tokenizer: str = option(
        "word", "unit of text: words, words and punctuation marks, byte pairs, or characters",
        "data", choices=KINDS,
    )  # fmt: skip
    vocab_size: int = option(10_000, "most frequent tokens kept", "data", **VOCABULARY)
    max_len: int = option(256, "tokens read of an example, at most", "model", **LENGTH)

    WITH_FILE = (*OwnData.WITH_FILE, "test_data", "val_data")
    # tokens of the vocabulary beside the tokenizer's own
    MORE_TOKENS = 0

    def split(self):
        """How the data is cut: more arguments of a loader."""
        validation = 0 if self.select == "test" else self.validation
        return {"validation": validation} | self.pick("limit_train", "limit_test", "seed")

    def source(self):
        return super().source() | {"test_file": self.test_data, "val_file": self.val_data}

    def check(self, given=()):
        super().check(given)
        kind = self.tokenizer if self.tokenizer in KINDS else "word"
        if self.vocab_size < (least := least_vocabulary(kind) + self.MORE_TOKENS):
            raise UserError(f"--vocab-size {self.vocab_size}: {kind} needs at least {least}")
        if self.select == "test":
            refuse(["validation", "val_data"], given, "it has no meaning with --select test")
        if self.val_data is not None:
            refuse(["validation"], given, "--val-data FILE has the validation rows")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitConfig(OwnTexts):
    """The settings of a task whose texts a pretrained encoder can read."""

    init_from: str = option(
        None, "start from the BERT-type encoder in FOLDER: its model.safetensors, config.json and "
        "tokenizer.json (implies --recipe finetune)", "model", type=file_path, metavar="FOLDER",
    )  # fmt: skip
    attention_init: str = option(
        "glorot", "initial attention weights: glorot, or as Keras drew them before version 3.13, "
        "smaller", "model", choices=("glorot", "keras"),
    )  # fmt: skip
    recipe: str = changed(OwnTexts, "recipe", "default", choices=RECIPES)

    DECIDED = ("width", "heads", "tokenizer", "vocab_size")  # by that encoder

    def check(self, given=()):
        super().check(given)
        if self.init_from is not None:
            refuse(self.DECIDED, given, "the encoder of --init-from decides it")
