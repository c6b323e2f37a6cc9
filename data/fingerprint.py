"""The fingerprint of a data set: what a run records to say which data it has seen."""

import hashlib

import numpy as np


def data_sha256(parts) -> str:
    """SHA-256, in hexadecimal, of `parts` in their order; the same on every machine.

    A part is a text, a count (int), bytes, or an array of floats. Texts carry their length, so that
    ["ab", ""] and ["a", "b"] differ; floats count as float64, and every NaN as the same one.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            encoded = part.encode()
            part = len(encoded).to_bytes(8, "little") + encoded
        elif isinstance(part, int):
            part = part.to_bytes(8, "little")
        elif not isinstance(part, bytes):
            part = np.where(np.isnan(part), np.nan, part).astype("<f8").tobytes()
        digest.update(part)
    return digest.hexdigest()
