"""The description in a best.safetensors of unknown origin, checked before it is used.

A checksum shows damage, not intent. Names, types and ranges are therefore checked here, and no size
is believed that the file's own arrays do not bear out: a few bytes cannot ask for much memory.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

NOTHING = type(None)
TEXT = {"max_len": int, "padding": str, "full": bool, "unmasked": bool, "drop_unknown": bool}
# What each task's model_spec must hold; a tuple is a choice, [x] a list of x.
SPECS = {
    "classifier": {"model": dict, "text": dict, "class_names": [(str, int, float, bool)]},
    "causal": {"model": dict, "text": {"rows": bool, "reset": bool}},
    "multimodal": {
        "model": dict, "text": dict, "mean": float, "deviation": float,
        "columns": {"text": str, "numbers": [str], "target": (str, NOTHING)},
        "standardiser": {"mean": [float], "deviation": [float], "flagged": bool},
    },
    "forecast": {
        "model": dict, "columns": [str], "time_column": (str, NOTHING), "mean": [float],
        "deviation": [float],
    },
}  # fmt: skip
OPTIONAL = {
    "classifier": {"columns": (NOTHING, {"text": (str, NOTHING)}), "temperature": float},
}
META = {"task": str, "origin": {"tokenizer": (str, NOTHING)}, "model_spec": {"model": dict}}
NAN = "nan"
RECORD = {"epoch": int, "step": int, "tokens_per_second": float, "seconds": float}
STATE: dict[str, Any] = {
    "position": {"epoch": int, "history": [RECORD]},
    "adam_steps": int,
    "origin": {"settings": dict, "tokenizer": (str, NOTHING)},
}  # fmt: skip
LONGEST = 2**24  # of what no array need be as long as: texts, windows, horizons
# Arguments of models that are no sizes, names or lists of names.
ARGUMENTS = dict.fromkeys(("masked", "one_logit", "tied"), bool) | dict.fromkeys(
    ("position_offset", "dropout", "token_dropout", "attention_dropout", "eps"), float
)
LENGTHS = {"max_len", "window", "horizon", "season", "patch", "stride"}


def fits(value: Any, pattern: Any) -> bool:
    """Whether a value from JSON is of a type, is one of a tuple, or holds what a pattern asks."""
    if isinstance(pattern, tuple):
        return any(fits(value, one) for one in pattern)
    if isinstance(pattern, list):
        return isinstance(value, list) and all(fits(part, pattern[0]) for part in value)
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            name in value and fits(value[name], part) for name, part in pattern.items()
        )
    if pattern == NAN:
        return type(value) is float
    if pattern is float:
        most = {int: 2**53, float: 1e300}.get(type(value), 0)
        return most > 0 and abs(value) < most
    return type(value) is pattern


def wrong(meta: Any, arrays: dict[str, np.ndarray]) -> str | None:
    """What is wrong with the description `meta` of `arrays`, None if they can be one model."""
    if not fits(meta, META) or meta["task"] not in SPECS:
        return "does not say what model it holds"
    spec = meta["model_spec"]
    needed, more = SPECS[meta["task"]], OPTIONAL.get(meta["task"], {})
    asked = needed | {name: pattern for name, pattern in more.items() if name in spec}
    if spec.keys() != asked.keys() or not fits(spec, asked):
        return f"does not describe a model of the task {meta['task']}"
    text = spec.get("text", {})
    if meta["task"] in ("classifier", "multimodal") and not (
        {"max_len"} <= text.keys() <= TEXT.keys()
        and all(fits(value, TEXT[name]) for name, value in text.items())
        and 1 <= text["max_len"] <= LONGEST
        and text.get("padding", "right") in ("left", "right")
    ):
        return "does not say how its texts are read"
    if not spec.get("temperature", 1.0) > 0:
        return "divides logits by a temperature that is not positive"
    if len(set(map(repr, lengths_of(meta["task"], spec)))) > 1:
        return "names other columns or classes than its model has"
    return None if moderate(spec["model"], arrays) else "asks for a model that its arrays are not"


def wrong_state(
    meta: Any,
    beginning: dict[str, Any],
    metric: str,
    arrays: dict[str, np.ndarray],
    vectors: dict[str, tuple[int, ...]],
) -> bool:
    """Whether `meta` and `arrays` cannot be a checkpoint of training.

    beginning: a position before the first step, which has the names and types of every other.
    metric: what chooses the epoch, and so is in every record of the history. vectors: name ->
    shape of those of the model; after an epoch those of the best one are there too.
    """
    if not fits(meta, STATE) or not fits(meta["position"].get("logged", []), [{"step": int}]):
        return True
    if meta["position"]["history"]:
        vectors = vectors | {"best": vectors["params"]}
    if {name: array.shape for name, array in arrays.items()} != vectors:
        return True
    position = meta["position"]
    kinds = {name: [dict] if value == [] else type(value) for name, value in beginning.items()}
    if position.keys() != kinds.keys() or not fits(position, kinds):
        return True
    counted = [*position.values(), meta["adam_steps"]]
    if any(type(value) is int and not 0 <= value < 2**53 for value in counted):
        return True
    history = position["history"]
    records = [*history, *position.get("logged", [])]
    if not all(fits(value, (float, NAN)) for record in records for value in record.values()):
        return True
    return position["epoch"] != len(history) + 1 or any(
        not fits(record, RECORD | {metric: (float, NAN)}) or record["epoch"] != number
        for number, record in enumerate(history, start=1)
    )


def lengths_of(task: str, spec: dict[str, Any]) -> list[int]:
    """Lengths that have to be the same."""
    if task == "classifier":
        return [len(spec["class_names"]), spec["model"].get("classes")]
    if task == "multimodal":
        standard = spec["standardiser"]
        columns = len(spec["columns"]["numbers"]), spec["model"].get("columns")
        return [len(standard["mean"]), len(standard["deviation"]), *columns]
    return [len(spec[name]) for name in ("columns", "mean", "deviation")] if "mean" in spec else []


def moderate(model: dict[str, Any], arrays: dict[str, np.ndarray]) -> bool:
    """Whether no size in the description of a model is larger than its arrays can make true."""
    total = sum(array.size for array in arrays.values())
    most = max(1024, total)
    sizes = dict(leaves(model))
    for name, value in sizes.items():
        if not fits(value, ARGUMENTS.get(name, (int, str, [str], NOTHING))) or value == []:
            return False
        if isinstance(value, int) and not 0 <= value <= (LONGEST if name in LENGTHS else most):
            return False
        if isinstance(value, str) and any(int(d[:18]) > most for d in re.findall("[0-9]+", value)):
            return False
    # A layer has at least two arrays, and one that is as long as the model is wide.
    layers, width = count_layers(sizes.get("layers", 1)), sizes.get("width", 1)
    return type(width) is int and layers <= len(arrays) + 1 and layers * width <= most


def leaves(tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        yield from leaves(value) if name == "encoder" and value else [(name, value)]


def count_layers(layers: Any) -> float:
    """How many layers a number, a pattern or a list of names stands for."""
    if isinstance(layers, int):
        return layers
    if isinstance(layers, list):
        return len(layers)
    if not isinstance(layers, str):
        return math.inf
    counts = (part.partition("*")[2].strip() for part in layers.split(","))
    return sum(int(count[:9]) if count.isascii() and count.isdigit() else 1 for count in counts)


class Undrawn:
    """In the place of a generator: arrays of the right shapes, which take no memory or time."""

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = ()) -> np.ndarray:
        return np.broadcast_to(np.float64(1), size)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = ()) -> np.ndarray:
        return np.broadcast_to(np.float64(1), size)
