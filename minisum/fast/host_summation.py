"""Direct summation of packed texts: work for real tokens alone, in place, a cacheful at a time."""

import numpy as np

from minisum.fast import one_real_type
from minisum.ops.embedding import RowGradient

# Numbers in an array of a chunk of tokens: 1 MB in float32, so that two or three stay in the cache.
CACHED = 2**18


def direct_summation(ids, table, positions, offset, W, mask=None, power=0.0):
    """The real tokens end to end, those of a text in a row, and nothing is done for the others.

    Each result takes the place of its source; words' vectors are read again on the way back.

    Saved: word, text and place of each real token, table, positions + offset, W, x ⊙ f, where z is
    positive, c^power.
    """
    if not one_real_type(table, positions, W):
        return NotImplemented
    B, (o, d) = len(ids), W.shape
    mask = np.ones(ids.shape, bool) if mask is None else mask
    factor = positions + offset
    words = ids[mask].astype(np.intp, copy=False)
    (texts, places), count = mask.nonzero(), mask.sum(axis=1)
    borders = np.concatenate([[0], count.cumsum()])
    y, chunks, size = np.zeros((B, o), table.dtype), [], max(1, CACHED // d)
    for start in range(0, len(words), size):
        chunk = slice(start, min(start + size, len(words)))
        placed = table.take(words[chunk], axis=0)  # unlike table[ids], it lets other threads work
        placed *= factor.take(places[chunk], axis=0)
        contributions = placed @ W.T
        positive = contributions > 0
        np.maximum(contributions, 0, out=contributions)
        parts = _parts(borders, texts, chunk)
        for text, part in parts:
            y[text] += contributions[part].sum(axis=0)
        chunks.append((chunk, parts, placed, positive))
    divisor = (np.maximum(count, 1) ** power).astype(table.dtype)[:, None]

    def back(dy):
        dy = dy / divisor
        dW, dpositions = np.zeros_like(W), np.zeros_like(factor)
        rows = np.empty((len(words), d), dy.dtype)
        for chunk, parts, placed, positive in chunks:
            # Zeros and ones first: a product with the booleans themselves takes twice as long.
            dcontributions = positive.astype(dy.dtype)
            dcontributions *= dy.take(texts[chunk], axis=0)
            dW += dcontributions.T @ placed
            dplaced = np.matmul(dcontributions, W, out=rows[chunk])
            read = table.take(words[chunk], axis=0)
            read *= dplaced
            for _, part in parts:
                dpositions[_run(places[chunk][part])] += read[part]
            dplaced *= factor.take(places[chunk], axis=0)
        return None, RowGradient(words, rows, table.shape), dpositions, dW, None

    return y / divisor, back


def _parts(borders, texts, chunk):
    """(text, its rows of the chunk) of each text that has some there."""
    first, last = texts[chunk.start], texts[chunk.stop - 1]
    cuts = borders[first : last + 2].clip(chunk.start, chunk.stop) - chunk.start
    return [(first + i, slice(*cuts[i : i + 2])) for i in range(last + 1 - first)]


def _run(places):
    """Ascending places as a slice, which is quicker, if there are no gaps between them."""
    gaps = len(places) and places[-1] - places[0] >= len(places)
    return places if gaps or not len(places) else slice(places[0], places[-1] + 1)
