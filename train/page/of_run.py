"""The page of a trained classifier: its weights in float16, and the script that computes with them.

The script is the model written once more, in JavaScript: tokenizer, layers, head and bag of words.
"""

import base64
import html
import json
import string
from pathlib import Path

import numpy as np

from minisum.errors import UserError
from minisum.layers import position_layer
from minisum.models import bag
from minisum.ops import embed
from minisum.runs.classifier import contributions
from minisum.text.byte_tokens import byte_characters
from minisum.text.tokenizer import PAD, WORD_BREAKS
from train.analyze.geometry import principal_axes
from train.run.curves import learning_curves

# What the tokenizers' patterns mean, as JavaScript spells it.
LETTERS = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d"
WORDS_AND_SIGNS = rf"[{LETTERS}]+|[^{LETTERS}\p{{White_Space}}]+"  # \w+|[^\w\s]+
CHARACTER = "[^]"
BYTE_PAIRS = (  # Radford et al. 2019
    r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+"
    r"|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+"
)
# The page's names of the arrays, and the model's.
ARRAYS = {
    "embedding": "embedding", "positions": "positions", "project": "project.W", "head": "head.W",
    "bias": "head.b", "bag": "bag",
}  # fmt: skip
PLANE_WORDS = 4096  # of the vocabulary decide the plane in which layers are drawn


def page_of(run, path, text):
    """The page of a ClassifierRun as a string.

    path: the run's folder, for its name and its learning curves; text: what the page begins with.
    """
    mixer = run.spec["model"]["mixer"]
    about = (
        f"{mixer}, {run.params.count:,} parameters, {len(run.classes)} classes. The page computes "
        "with the model's own weights, in float16; nothing that you type leaves it."
    )
    described = describe(run)
    model = json.dumps(described, ensure_ascii=False, separators=(",", ":"))
    layered = "axes" in described["arrays"]
    return part("page.html").substitute(
        title=html.escape(f"{Path(path).resolve().name}: what each word adds"),
        about=html.escape(about),
        text=html.escape(text),
        style=part("style.css").template,
        decision=part("decision.html").template,
        layers=part("layers.html").template if layered else "",
        curves=learning_curves(Path(path) / "metrics.jsonl"),
        model=model.replace("<", "\\u003c"),  # or a word could end the script
        script="".join(part(f"{name}.js").template for name in ("decision", "paths", "model")),
    )


def part(name):
    """A file beside this one, to be filled in."""
    return string.Template(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def describe(run):
    """What the script needs to know of a ClassifierRun, JSON-able."""
    contributions(run.model, run.params, np.zeros(1, int), np.ones(1, bool))  # refuses if inexact
    model, reader, flat = run.model, run.reader, run.params.to_host()
    if model.bag_rows:
        flat["bag"] = bag.RATE * flat["bag"]
    arrays = {n: in_float16(flat[name], name) for n, name in ARRAYS.items() if name in flat}
    plane = {}
    if "project" in arrays:
        centre, axes = plane_of(model, run.params)
        arrays["axes"], plane["origin"] = in_float16(axes.T, "axes"), (centre @ axes).tolist()
    return {
        "classes": [str(name) for name in run.classes],
        **describe_tokenizer(run.tokenizer),
        "pad": PAD,
        "max_len": reader.max_len,
        "padding": reader.padding,
        "full": reader.full,
        "drop_unknown": reader.drop_unknown,
        "unmasked": not model.masked,
        "adds": model.positions == "add",
        "offset": model.position_offset,
        "power": model.power,
        "rows": model.bag_rows,
        "rounds": [[shift, str(factor)] for shift, factor in bag.ROUNDS],
        "temperature": run.temperature,
        "width": model.width,
        "arrays": arrays,
        **plane,
    }


def describe_tokenizer(tokenizer):
    """The vocabulary, what a word is, and for byte pairs their ranks and the bytes' characters."""
    form = json.loads(tokenizer.to_str())
    kind = form["pre_tokenizer"]["type"]
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    found = {"words": [word for word, _ in words], "merges": []}
    if form["model"]["type"] == "BPE":
        found["merges"] = [" ".join(pair) for pair in form["model"]["merges"]]
        found["bytes"] = "".join(byte_characters())
        return found | {"word": BYTE_PAIRS if kind == "ByteLevel" else CHARACTER}
    breaks = "".join(escaped(character) for character in WORD_BREAKS)
    return found | {"word": WORDS_AND_SIGNS if kind == "Whitespace" else f"[^{breaks}]+"}


def layers_of(model, params, ids):
    """A token's vector after each layer, (B, n, d) each: the word, at its place, its contribution.

    ids (B, n). For a model with positions and a projection: direct summation.
    """
    x, _ = embed(ids, params["embedding"])
    placed, _ = position_layer(params, x, model.positions, model.position_offset)
    return [x, placed, model.contributions(params, ids)]


def plane_of(model, params):
    """(centre (d), axes (d, 2)) of the plane in which the first words' layers spread most."""
    words = np.arange(min(model.vocab, PLANE_WORDS))
    ids = np.resize(words, (-(-len(words) // model.max_len), model.max_len))
    layers = layers_of(model, params, params.xp.asarray(ids))
    return principal_axes([layer.reshape(-1, model.width) for layer in layers])


def escaped(character):
    """A character as a JavaScript pattern spells it in a class, in any mode."""
    return f"\\u{ord(character):04x}"


def in_float16(array, name):
    """base64 of an array in float16, little-endian."""
    half = np.asarray(array).astype("<f2")
    if not np.isfinite(half).all():
        raise UserError(f"{name} holds numbers too large for the page's float16")
    return base64.b64encode(half.tobytes()).decode()
