"""Direct summation in place: four arrays where the chain of ops makes eight, in the cache."""

import numpy as np

from minisum.fast import one_real_type
from minisum.ops.embedding import RowGradient

# Numbers in an array of a chunk of tokens: 1 MB in float32, so that two or three stay in the cache.
CACHED = 2**18


def direct_summation(ids, table, positions, offset, W, mask=None, power=0.0):
    """As many tokens of all texts at a time as the cache holds.

    Each result takes the place of its source, and the words' vectors are read again on the way
    back.

    Saved: ids, table, positions + offset, W, x ⊙ f, where z is positive, c^power.
    """
    if not one_real_type(table, positions, W):
        return NotImplemented
    (B, n), (o, d) = ids.shape, W.shape
    factor = positions + offset
    tokens = max(1, CACHED // max(1, B * d))
    y, chunks = 0, []
    for start in range(0, max(1, n), tokens):
        chunk = slice(start, min(start + tokens, n))
        placed = table.take(ids[:, chunk], axis=0)  # unlike table[ids], it lets other threads work
        placed *= factor[chunk]
        placed = placed.reshape(B * (chunk.stop - start), d)
        contributions = placed @ W.T
        positive = contributions > 0
        np.maximum(contributions, 0, out=contributions)
        if mask is not None:
            real = mask[:, chunk].reshape(-1)
            positive &= real[:, None]
            contributions[~real] = 0
        y = y + contributions.reshape(B, chunk.stop - start, o).sum(axis=1)
        chunks.append((chunk, placed, positive))
    count = np.full((B, 1), n) if mask is None else mask.sum(axis=1)[:, None]
    divisor = (np.maximum(count, 1) ** power).astype(table.dtype)

    def back(dy):
        dy = dy / divisor
        dW, dpositions, rows, done = 0, np.empty_like(factor), np.empty((B * n, d), dy.dtype), 0
        for chunk, placed, positive in chunks:
            words = ids[:, chunk]
            dcontributions = np.empty((*words.shape, o), dy.dtype)
            # Zeros and ones first: a product with the booleans themselves takes twice as long.
            np.copyto(dcontributions, positive.reshape(dcontributions.shape))
            dcontributions *= dy[:, None]
            dcontributions = dcontributions.reshape(positive.shape)
            dW = dW + dcontributions.T @ placed
            dplaced = np.matmul(dcontributions, W, out=rows[done : done + len(placed)])
            dplaced = dplaced.reshape(*words.shape, d)
            read = table.take(words, axis=0)
            read *= dplaced
            dpositions[chunk] = read.sum(axis=0)
            dplaced *= factor[chunk]
            done += len(placed)
        places = np.concatenate([ids[:, chunk].reshape(-1) for chunk, _, _ in chunks])
        return None, RowGradient(places, rows, table.shape), dpositions, dW, None

    return y / divisor, back
