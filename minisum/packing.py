"""Padded texts for a GPU: in few shapes, since each shape is recorded separately, and packed.

A batch of texts is padded to the longest, and token dropout leaves gaps in each. Where tokens
interact only in a sum, only the real ones are computed with. The host lists their positions, since
it knows their number without waiting for the GPU.
"""

import numpy as np

# Texts have a multiple of so many tokens; packed batches at least so many real ones.
LENGTH_BUCKET, LEAST_KEPT = 16, 64


def pad_texts(batch, max_len, masked=True):
    """`batch` with a multiple of LENGTH_BUCKET tokens a text; as it is if padding is not masked."""
    return _widened(
        batch, -(-batch["ids"].shape[1] // LENGTH_BUCKET) * LENGTH_BUCKET, max_len, masked
    )


def pack_texts(batch, max_len, masked=True):
    """`batch` with, in the place of its mask, the real tokens b n + t, ascending and int32.

    After the last stands -1, so often that of lengths there are only a few, at most an eighth more
    than needed.
    """
    batch = _widened(batch, _next_size(batch["ids"].shape[1], 1), max_len, masked)
    tokens = np.flatnonzero(batch["mask"]).astype(np.int32)
    size = _next_size(max(LEAST_KEPT, len(tokens)), 8)
    return batch | {"mask": _filled(tokens, (size,), -1)}


def _widened(batch, n, max_len, masked):
    more = min(max_len, n) - batch["ids"].shape[1]
    if not masked or more <= 0:
        return batch
    shape = len(batch["ids"]), batch["ids"].shape[1] + more
    return batch | {name: _filled(batch[name], shape, 0) for name in ("ids", "mask")}


def _filled(a, shape, value):
    """An array of this shape that begins with `a`; np.pad takes twenty times as long for few."""
    larger = np.full(shape, value, a.dtype)
    larger[tuple(map(slice, a.shape))] = a
    return larger


def _next_size(least, parts):
    """The first number from `least` on of those that cut each octave in `parts`: 1 gives 2^k."""
    step = max(1, 2 ** (least - 1).bit_length() // (2 * parts))
    return -(-least // step) * step
