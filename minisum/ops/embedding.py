"""From token ids to vectors, and from vectors to vectors that depend on their position."""

from minisum.backend import array_module
from minisum.fast import has_fast_forms


class RowGradient:
    """The gradient of a table of which few rows were read: rows[i] is to be added at table[ids[i]].

    ids any shape S, integer, repeats allowed; rows (*S, d); shape (V, d), the table's. The zeros of
    all other rows are only written out by `dense`.
    """

    def __init__(self, ids, rows, shape):
        self.ids, self.rows, self.shape, self.dtype = ids, rows, shape, rows.dtype

    def add_to(self, table):
        """table[ids[i]] += rows[i] for every i, in place; a repeated id adds each of its rows."""
        add_rows(table, self.ids, self.rows)

    def dense(self):
        """The same gradient as an array (V, d)."""
        table = array_module(self.rows).zeros(self.shape, self.dtype)
        self.add_to(table)
        return table


@has_fast_forms
def add_rows(table, ids, rows):
    """table[ids[i]] += rows[i] for every i, repeated ids included. In place.

    table (V, d); ids any shape S, in [0, V); rows (*S, d). `table[ids] += rows` would keep only one
    row of each repeated id. (On a GPU the additions are atomic, in an order that varies.)
    """
    array_module(table).add.at(table, ids.reshape(-1), rows.reshape(-1, table.shape[1]))


def embed(ids, table):
    """x[b, t] = table[ids[b, t]].   ids (B, n) integer, table (V, d) -> x (B, n, d)

    A word that occurs k times receives the sum of k gradients:
    dtable[v] = Σ dx[b, t] over all (b, t) with ids[b, t] = v, returned as a `RowGradient`.
    Ids have no gradient.

    Saved: ids, and the table's shape.
    """
    shape = table.shape

    def back(dx):
        return None, RowGradient(ids, dx, shape)

    return table.take(ids.astype("intp", copy=False), axis=0), back


def modulate(x, positions, offset):
    """y[b, t] = x[b, t] ⊙ (positions[t] + offset).   x (B, n, d), positions (n, d) -> y (B, n, d)

    How the summation papers encode positions: each position scales the channels of the token that
    is there. With the offset (1 or 2 in the published models) an untrained position, near 0, passes
    its token on almost unchanged or doubled, where without it the product would be near 0.

    Product rule: dx = dy ⊙ (positions + offset); dpositions = Σ_b dy ⊙ x.

    Saved: x, positions.
    """

    def back(dy):
        return dy * (positions + offset), (dy * x).sum(axis=0)

    return x * (positions + offset), back


def add_positions(x, positions):
    """y[b, t] = x[b, t] + positions[t].   x (B, n, d), positions (n, d) -> y (B, n, d)

    A sum passes its gradient on: dx = dy; all texts of the batch read the same positions, so
    dpositions = Σ_b dy.

    Saved: nothing.
    """

    def back(dy):
        return dy, dy.sum(axis=0)

    return x + positions, back
