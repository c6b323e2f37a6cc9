"""A trained model, read back from the folder of its run.

best.safetensors describes what it holds: the task, the kind and the sizes of the model, and how
inputs are preprocessed. So a folder can be moved, and predicts without its settings and its data.
"""

import hashlib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from minisum import backend, checkpoint
from minisum.errors import UserError, did_you_mean
from minisum.files import read_bytes
from minisum.params import Params, flatten
from minisum.runs import schema

# Where in minisum.models each kind of model is made.
KINDS = {
    "classifier": "any_length.build",
    "encoder_classifier": "encoder.EncoderClassifier",
    "bert_classifier": "bert.BertClassifier",
    "language_model": "language_model.LanguageModel",
    "regressor": "multimodal.build",
    "forecaster": "forecaster.Forecaster",
    "linear_map": "series_baselines.LinearMap",
    "repeat": "series_baselines.Repeat",
}


def build_model(kind: str, **sizes: Any) -> Any:
    """The model of a `kind`, one of KINDS; sizes: the arguments that make it."""
    module, _, name = KINDS[kind].partition(".")
    return getattr(import_module(f"minisum.models.{module}"), name)(**sizes)


def read_model(
    path: str | Path, task: str | None = None, backend_name: str = "numpy"
) -> tuple[Any, Params, Any, dict[str, Any]]:
    """(model, params, tokenizer, spec) of the best epoch of the run in folder `path`.

    tokenizer: None for a model that reads no texts. spec: the task and what its `model_spec` says.
    UserError if there is no trained model, if it is of another task than `task`, or if a file in
    the folder is damaged or of another run.
    """
    path = Path(path)
    best = path / checkpoint.BEST
    if not best.is_file():
        raise UserError(why_not(path))
    arrays, meta = checkpoint.load(best)
    if reason := schema.wrong(meta, arrays):
        raise UserError(
            f"{best} {reason}: if an earlier version of minisum wrote it, delete it and --resume "
            "the run, which writes it again"
        )
    spec = {"task": meta["task"], **meta["model_spec"]}
    if task not in (None, spec["task"]):
        raise UserError(f"{path} is a run of another task: {spec['task']}")
    tokenizer = read_its_tokenizer(path, spec, meta["origin"]["tokenizer"])
    try:
        model = build_model(**spec["model"])
        expected = flatten(model.init(schema.Undrawn()))
    # Whatever a model's own constructor makes of sizes that do not go together.
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{best} holds a model that this version does not know") from error
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != {name: np.shape(array) for name, array in expected.items()}:
        raise UserError(f"{best} holds other arrays than the model that it describes")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError(f"{best} holds numbers that are not finite")
    return model, Params.from_arrays(arrays, xp=backend.get(backend_name)), tokenizer, spec


def why_not(path: Path) -> str:
    """Why a folder without best.safetensors has no model."""
    inside = sorted(best.parent.name for best in path.glob(f"*/{checkpoint.BEST}"))
    if inside:
        names = ", ".join(inside)
        return f"{path} compares several mixers: choose one of the folders in it ({names})"
    if (path / "config.json").exists():
        return f"{path} has no trained model yet: its first epoch is not done"
    others = [str(one) for one in path.parent.glob("*/")] if not path.exists() else []
    return (
        f"{path} has no run in it: there is no {checkpoint.BEST}{did_you_mean(str(path), others)}"
    )


def read_its_tokenizer(path: Path, spec: dict[str, Any], digest: str) -> Any:
    """The tokenizer that the model was trained with, known by its SHA-256; None without texts."""
    if "text" not in spec:
        return None
    from minisum.text import byte_tokens, tokenizer

    file = path / checkpoint.TOKENIZER
    found = (byte_tokens.load if spec["task"] == "causal" else tokenizer.load_tokenizer)(file)
    if hashlib.sha256(read_bytes(file, checkpoint.TOKENIZER_BYTES)).hexdigest() != digest:
        raise UserError(f"{path} holds a tokenizer that its model was not trained with")
    return found
