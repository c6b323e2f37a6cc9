"""Pretrained weights: an encoder of BERT's kind, read from a local folder.

The folder is what the library transformers writes: config.json, model.safetensors, tokenizer.json.
Devlin et al. 2019, "BERT: Pre-training of deep bidirectional transformers".
"""

import re
from pathlib import Path

import numpy as np

from minisum import checkpoint, files
from minisum.errors import UserError
from minisum.params import flatten

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# Names in the file, and here; * is the number of the layer.
LAYER, BLOCK = "encoder.layer.*", "blocks.*"
NAMES = {
    "embeddings.word_embeddings": "embedding",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "types",
    "embeddings.LayerNorm": "norm",
    f"{LAYER}.attention.self.query": f"{BLOCK}.mixer.q",
    f"{LAYER}.attention.self.key": f"{BLOCK}.mixer.k",
    f"{LAYER}.attention.self.value": f"{BLOCK}.mixer.v",
    f"{LAYER}.attention.output.dense": f"{BLOCK}.mixer.o",
    f"{LAYER}.attention.output.LayerNorm": f"{BLOCK}.norm1",
    f"{LAYER}.intermediate.dense": f"{BLOCK}.up",
    f"{LAYER}.output.dense": f"{BLOCK}.down",
    f"{LAYER}.output.LayerNorm": f"{BLOCK}.norm2",
}
# The last part of a name, by what holds the array. gamma and beta: files of BERT's first years.
NORM = {"weight": ".gain", "bias": ".bias", "gamma": ".gain", "beta": ".bias"}
LINEAR, TABLE = {"weight": ".W", "bias": ".b"}, {"weight": ""}
# What of a model's parameters the file holds.
OURS = ("embedding", "positions", "types", "norm", "blocks")
# What config.json must say, where it says anything.
KNOWN = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
SIZES = {
    "vocab": "vocab_size", "width": "hidden_size", "max_len": "max_position_embeddings",
    "layers": "num_hidden_layers", "heads": "num_attention_heads", "d_ff": "intermediate_size",
    "types": "type_vocab_size",
}  # fmt: skip


class Pretrained:
    """The encoder in a folder: `sizes`, by name, and `arrays`, by their names here.

    UserError if a file is missing or damaged, or if the encoder is of another kind.
    """

    def __init__(self, path):
        self.path = Path(path)
        config = self.read(CONFIG, read_config)
        for name, value in KNOWN.items():
            if (found := config.get(name, value)) != value:
                raise UserError(f"{self.path / CONFIG}: {name} {found} is not known, only {value}")
        self.sizes = {ours: config.get(theirs) for ours, theirs in SIZES.items()}
        for ours, theirs in SIZES.items():
            if type(self.sizes[ours]) is not int or self.sizes[ours] < 1:
                raise UserError(f"{self.path / CONFIG} has no {theirs}")
        self.eps = config.get("layer_norm_eps", 1e-12)
        if type(self.eps) is not float or not 0 < self.eps < 1:
            raise UserError(f"{self.path / CONFIG}: layer_norm_eps {self.eps} is not known")
        arrays = self.read(WEIGHTS, read_weights)
        self.theirs = {our_name(name): name for name in arrays if our_name(name)}
        self.others = sorted(name for name in arrays if not our_name(name))
        self.arrays = {ours: arrays[name] for ours, name in self.theirs.items()}
        # No size is believed that the arrays do not bear out.
        vocab, d, n, layers, _, d_ff, _ = self.sizes.values()
        shapes = {
            "embedding": (vocab, d),
            "positions": (n, d),
            f"blocks.{layers - 1}.up.W": (d_ff, d),
        }
        for name, shape in shapes.items():
            if (array := self.arrays.get(name)) is None or array.shape != shape:
                self.refuse(name, array, shape)

    def read(self, name, reader):
        try:
            return reader(self.path / name)
        except OSError as error:
            raise UserError(f"cannot read {self.path / name}: {error.strerror}") from None
        except UserError:
            raise
        except Exception as error:  # JSON, safetensors and what NumPy lacks fail in their own ways
            raise UserError(f"{self.path / name} cannot be understood: {error}") from None

    @property
    def encoder(self):
        """The arguments of `minisum.models.bert.BertEncoder` that make this one."""
        sizes = {name: self.sizes[name] for name in ("layers", "heads", "d_ff", "types")}
        return sizes | {"eps": self.eps}

    def fill(self, first, mixer="attention", only=None):
        """`first`, a model's first values, as flat arrays, with this file's where they belong.

        Of the positions the first ones are taken, as many as the model has. Another mixer keeps
        what it has by attention's names, and the map of what it sums, `project`, begins as that of
        the values. only: the arrays to take, by name; None for all. `account` then tells what went
        where. UserError if an array is missing or of another shape.
        """
        filled, used, own = {}, set(), []
        for name, drawn in flatten(first).items():
            source = name if name in self.arrays else name.replace(".project.", ".v.")
            array = self.arrays.get(source)
            if array is not None and name == "positions":
                array = array[: len(drawn)]
            fits = array is not None and array.shape == np.shape(drawn)
            swapped = mixer != "attention" and ".mixer." in name
            if not (fits or swapped) and name.partition(".")[0] in OURS:
                self.refuse(name, array, np.shape(drawn))
            if fits and (only is None or name in only):
                filled[name] = array
                used.add(source)
            else:
                filled[name] = drawn
                own.append(name)
        unused = [self.theirs[name] for name in self.arrays.keys() - used] + self.others
        given = f"{len(used)} of the {len(self.arrays) + len(self.others)} arrays in {self.path}"
        told = f"{given}; left out: {listed(unused)}; drawn: {listed(own)}"
        self.account = {"init_from": told}
        return filled

    def refuse(self, name, array, shape):
        file = self.path / WEIGHTS
        if array is None:
            raise UserError(f"{file} holds no array for {name}")
        found = f"{self.theirs[name]} of the shape {array.shape}"
        raise UserError(f"{file} holds {found}, and by {CONFIG} it is {shape}")


def our_name(name):
    """The name of a file's array in minisum; None if it has none."""
    stem, _, last = name.removeprefix("bert.").rpartition(".")
    number = re.search(r"(?<=^encoder\.layer\.)\d+(?=\.)", stem)
    ours = NAMES.get(stem.replace(number[0], "*", 1) if number else stem)
    ending = (NORM if "Norm" in stem else LINEAR if number else TABLE).get(last)
    if ours is None or ending is None:
        return None
    return (ours.replace("*", number[0]) if number else ours) + ending


def listed(names):
    """The names in a line, each once for all layers."""
    return ", ".join(sorted({re.sub(r"\.\d+\.", ".*.", name) for name in names})) or "none"


def read_config(path):
    content = files.parse_json(files.read_bytes(path, files.JSON_BYTES))
    if not isinstance(content, dict):
        raise ValueError
    return content


def read_weights(path):
    return checkpoint.safetensors_library().load(files.read_bytes(path, checkpoint.MOST_BYTES))
