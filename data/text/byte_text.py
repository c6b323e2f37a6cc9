"""Text classification from bytes: any labelled text, without a tokenizer.

The text "Añb" and the class 1 make the example

    ids 66 196 178 99      target 1

Every byte of the UTF-8 form is a token, its value plus one; 0 is padding. Long Range Arena's "Text"
task (Tay et al. 2021) is this on IMDb, cut to the first 1,000 to 4,000 bytes.
"""

import numpy as np

from data.text.batches import Ragged

VOCAB = 257


def encode(texts, max_len: int) -> Ragged:
    """The first `max_len` bytes of each text as token numbers."""
    encoded = [text.encode("utf-8", "surrogatepass")[:max_len] for text in texts]
    flat = np.frombuffer(b"".join(encoded), np.uint8).astype(np.int32) + 1
    ends = np.cumsum([len(piece) for piece in encoded], dtype=np.int64)
    return Ragged(flat, np.concatenate([[0], ends]).astype(np.int64))


def decode(ids) -> str:
    """The text again; padding is left out, and bytes that are no character become U+FFFD."""
    return bytes(int(i) - 1 for i in ids if i).decode("utf-8", "replace")
