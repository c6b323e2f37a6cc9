"""Checkpoints: named arrays and a JSON description in one safetensors file.

A checkpoint is written completely or not at all: into a temporary file of the same folder, flushed
to the disk, then renamed over the old one. It carries a SHA-256 of its content, so a torn,
truncated or bit-flipped file is recognised when it is read. The format has no code in it (never
pickle): reading a stranger's checkpoint is safe.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

import minisum
from minisum.errors import UserError, missing
from minisum.files import read_bytes, write_bytes

# Of checkpoints and of config.json. 2: the parameter names of minisum 0.2.
FORMAT = 2
MOST_BYTES = 1 << 40
HEADER_BYTES = 64 << 20

# Files in the folder of a run: the parameters of its best epoch, and what reads its texts.
BEST, TOKENIZER = "best.safetensors", "tokenizer.json"
TOKENIZER_BYTES = 64 << 20


def save(path, arrays, meta, previous=None):
    """Write host arrays and JSON-able `meta` to `path`, atomically.

    previous: where the file that is at `path` now is kept, for one generation.
    Raises UserError if the file cannot be written (no room, no permission); the file at `path`
    is then untouched.
    """
    safetensors = safetensors_library()
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps(meta, sort_keys=True)
    # One metadata entry, since safetensors writes several in no fixed order: the same state then
    # gives the same bytes.
    entry = json.dumps({"format": FORMAT, "sha256": _digest(arrays, text), "meta": text})
    write_bytes(path, safetensors.save(arrays, {"minisum": entry}), previous)


def load(path):
    """Read (arrays, meta) back, or raise UserError if the file is missing, damaged or too old."""
    safetensors = safetensors_library()
    path = Path(path)
    try:
        # What the header says is checked before anything believes it, or takes memory for it.
        length = int.from_bytes(read_bytes(path, MOST_BYTES, 8), "little")
        if length > HEADER_BYTES:
            raise ValueError("the header is longer than any of ours")
        header = json.loads(read_bytes(path, MOST_BYTES, 8 + length)[8:])
        entry = json.loads(header.pop("__metadata__")["minisum"])
        end = max((array["data_offsets"][1] for array in header.values()), default=0)
        if os.path.getsize(path) != 8 + length + end:
            raise ValueError("the file is not as long as its header says")
        data = read_bytes(path, MOST_BYTES)
        arrays = safetensors.load(data)
        whole = entry["sha256"] == _digest(arrays, entry["meta"])
        meta = json.loads(entry["meta"])
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror}") from None
    except MemoryError:
        raise UserError(f"there is not enough memory to read the checkpoint {path}") from None
    # Damage may surface as nearly any exception, in JSON, in safetensors or in between.
    except Exception as error:
        raise UserError(f"the checkpoint {path} is damaged or not one of minisum's") from error
    if not whole:
        raise UserError(f"the checkpoint {path} is damaged: its checksum does not match")
    require_format(path, entry.get("format"))
    return arrays, meta


def require_format(path, found):
    """UserError if the file or run at `path` has the format of another version of minisum."""
    if found != FORMAT:
        version = "minisum 0.1" if found is None else f"a later minisum (format {found})"
        raise UserError(
            f"{path} was written by {version}; minisum {minisum.__version__} cannot read it: "
            "train again, or use that version"
        )


def _digest(arrays, text):
    """SHA-256 over names, types, shapes and bytes of the arrays, and over the description."""
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.asarray(array, order="C").data if array.size else b"")
    return digest.hexdigest()


def safetensors_library():
    try:
        import safetensors.numpy
    except ImportError:
        raise missing("checkpoints need safetensors", "safetensors") from None
    return safetensors.numpy
