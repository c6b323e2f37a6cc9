"""Direct summation in few steps: its two ends as one op each, and all of it as one.

On a GPU each end is one kernel; on NumPy they are the plain ops of the other files, one after the
other: read those first. The whole, `direct_summation`, works in place on NumPy, in four arrays
where the plain ops make eight, so that more of a text stays in the cache.
"""

import numpy as np

from minisum.backend import array_module
from minisum.fast import cuda as kernels
from minisum.ops.activations import relu
from minisum.ops.embedding import RowGradient, embed, modulate
from minisum.ops.linear import linear
from minisum.ops.pooling import mean_tokens, token_divisor

# Numbers in an array of a stretch: 1 MB in float32, so that two or three stay in the cache.
CACHED = 2**18


def embed_modulate(ids, table, positions, offset):
    """y[b, t] = table[ids[b, t]] ⊙ (positions[t] + offset).

    ids (B, n) integer, table (V, d), positions (n, d) -> y (B, n, d). Equals modulate(embed(...)),
    and so do the gradients: dtable[v] = Σ dy ⊙ (positions + offset) over the places of word v, a
    `RowGradient`, and dpositions[t] = Σ_b dy[b, t] ⊙ table[ids[b, t]].

    Saved: ids, positions, the words' rows of table; on a GPU the table instead of them.
    """
    if kernels.runs_on(table, positions):
        ids = ids.astype("int32", copy=False)

        def back_fused(dy):
            dtable = ModulatedRows(dy, ids, positions, offset, table.shape)
            return None, dtable, kernels.positions_back(dy, ids, table)

        return kernels.embed_modulate(ids, table, positions, offset), back_fused

    x, back_embed = embed(ids, table)
    y, back_modulate = modulate(x, positions, offset)

    def back(dy):
        dx, dpositions = back_modulate(dy)
        _, dtable = back_embed(dx)
        return None, dtable, dpositions

    return y, back


class ModulatedRows(RowGradient):
    """Rows dy ⊙ (positions + offset), multiplied by one GPU kernel as it adds them."""

    def __init__(self, dy, ids, positions, offset, shape):
        super().__init__(ids, dy, shape)
        self.positions, self.offset = positions, offset

    def add_to(self, table):
        kernels.words_back(self.rows, self.ids, self.positions, self.offset, table)


def relu_pool(x, mask=None, power=0.0):
    """y[b] = Σ relu(x[b, t]) / c[b]^power over the c[b] real tokens t of text b.

    x (B, n, d), mask (B, n) bool or None -> y (B, d). Equals mean_tokens(relu(x), mask, power):
    dx[b, t] = dy[b] / c[b]^power where x[b, t] > 0 and the token is real, else 0.

    Saved: which entries were positive, mask, c^power.
    """
    if kernels.runs_on(x):
        divisor = token_divisor(x, mask, power) if power else None
        total, positive = kernels.relu_sum(x, mask)

        def back_fused(dy):
            return kernels.relu_sum_back(dy / divisor if power else dy, positive), None

        return total / divisor if power else total, back_fused

    said, back_relu = relu(x)
    y, back_mean = mean_tokens(said, mask, power)

    def back(dy):
        dsaid, _ = back_mean(dy)
        return back_relu(dsaid), None

    return y, back


def direct_summation(ids, table, positions, offset, W, mask=None, power=0.0):
    """y[b] = Σ_t relu((table[ids[b, t]] ⊙ (positions[t] + offset)) @ W.T) / c[b]^power over real t.

    ids (B, n) integer, table (V, d), positions (n, d), W (o, d), mask (B, n) bool or None ->
    y (B, o); c[b] is the number of real tokens. Equals embed_modulate, linear and relu_pool one
    after the other, and is just that on a GPU: `direct_summation_plain` says it in these words.

    With x = table[ids], f = positions + offset, z = (x ⊙ f) @ W.T: dz[b, t] = dy[b] / c[b]^power
    where z[b, t] > 0 and the token is real, else 0; dW = dz.T @ (x ⊙ f); with dp = dz @ W,
    dpositions = Σ_b dp ⊙ x, and dtable[v] sums dp ⊙ f over the places of word v. The
    latter is a `RowGradient`.

    Saved: ids, table, positions + offset, W, x ⊙ f, where z is positive, c^power; on a GPU what the
    three ops save.
    """
    in_place = array_module(table) is np and table.dtype in (np.float32, np.float64)
    form = _direct_summation_in_place if in_place else direct_summation_plain
    return form(ids, table, positions, offset, W, mask, power)


def direct_summation_plain(ids, table, positions, offset, W, mask=None, power=0.0):
    """`direct_summation` as a chain of ops."""
    placed, back_embed = embed_modulate(ids, table, positions, offset)
    projected, back_project = linear(placed, W)
    y, back_pool = relu_pool(projected, mask, power)

    def back(dy):
        dprojected, _ = back_pool(dy)
        dplaced, dW = back_project(dprojected)
        _, dtable, dpositions = back_embed(dplaced)
        return None, dtable, dpositions, dW, None

    return y, back


def _direct_summation_in_place(ids, table, positions, offset, W, mask, power):
    """`direct_summation` on NumPy, as much of the texts at a time as the cache holds."""
    (B, n), d = ids.shape, table.shape[1]
    factor = positions + offset
    tokens = max(1, CACHED // max(1, B * d))
    stretches = [slice(start, start + tokens) for start in range(0, max(1, n), tokens)]
    y, backs = 0, []
    for stretch in stretches:
        real = None if mask is None else mask[:, stretch]
        said, back_stretch = _say(ids[:, stretch], table, factor[stretch], W, real)
        y = y + said
        backs.append(back_stretch)
    divisor = token_divisor(np.empty(ids.shape, table.dtype), mask, power) if power else None
    if power:
        y /= divisor

    def back(dy):
        dy = dy / divisor if power else dy
        dW, dpositions, rows, start = 0, np.empty_like(factor), np.empty((B * n, d), dy.dtype), 0
        for stretch, back_stretch in zip(stretches, backs, strict=True):
            end = start + B * len(factor[stretch])
            dW_of_stretch, dpositions[stretch] = back_stretch(dy, rows[start:end])
            dW, start = dW + dW_of_stretch, end
        read = np.concatenate([ids[:, stretch].reshape(-1) for stretch in stretches])
        return None, RowGradient(read, rows, table.shape), dpositions, dW, None

    return y, back


def _say(ids, table, factor, W, mask):
    """What the real tokens of a stretch say, added up; each result takes the place of its source.

    back(dy, out) -> dW, dpositions; the gradients of the words are written to `out`.
    """
    (B, n), (o, d) = ids.shape, W.shape
    placed = table.take(ids, axis=0)  # unlike table[ids], it lets other threads work
    placed *= factor
    rows = placed.reshape(B * n, d)
    projected = rows @ W.T
    positive = projected > 0
    np.maximum(projected, 0, out=projected)
    if mask is not None:
        positive &= mask.reshape(-1, 1)
        projected[~mask.reshape(-1)] = 0

    def back(dy, out):
        dprojected = np.empty((B, n, o), dy.dtype)
        # Zeros and ones first: a product with the booleans themselves takes twice as long.
        np.copyto(dprojected, positive.reshape(B, n, o))
        dprojected *= dy[:, None]
        dprojected = dprojected.reshape(B * n, o)
        dW = dprojected.T @ rows
        dplaced = np.matmul(dprojected, W, out=out).reshape(B, n, d)
        words = table.take(ids, axis=0)
        words *= dplaced
        dpositions = words.sum(axis=0)
        dplaced *= factor
        return dW, dpositions

    return projected.reshape(B, n, o).sum(axis=1), back
