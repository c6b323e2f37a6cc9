"""From token ids to vectors that know where they stand."""

from minisum.backend import accumulator, add_rows, array_module


def embed(ids, table):
    """x[b, t] = table[ids[b, t]].   ids (B, n) integer, table (V, d) -> x (B, n, d)

    A row that was read several times is owed the sum of all their gradients:
    dtable[v] = Σ dx[b, t] over every place where ids[b, t] = v. Ids have no gradient.

    Most rows of a table were not read. back(dx, add_to=G) adds to the rows of G that were, and
    returns G, where a table of zeros for every shard of a batch would cost more than the rest.

    Saved: ids, and the table's shape and type.
    """
    shape, dtype = table.shape, table.dtype

    def back(dx, add_to=None):
        if add_to is not None:
            add_rows(add_to, ids, dx)
            return None, add_to
        dtable = array_module(dx).zeros(shape, accumulator(dtype))
        add_rows(dtable, ids, dx)
        return None, dtable.astype(dtype, copy=False)

    return table.take(ids, axis=0), back


def modulate(x, positions, bias):
    """y[b, t] = x[b, t] ⊙ (positions[t] + bias).   x (B, n, d), positions (n, d) -> y (B, n, d)

    The summation papers' way to tell tokens where they stand: each place amplifies or mutes the
    channels of whatever word is there. `bias` (1 or 2 in the published models) lets an untrained
    position pass its word on unchanged in size.

    Product rule: dx = dy ⊙ (positions + bias); dpositions = Σ_b dy ⊙ x.

    Saved: x, positions.
    """

    def back(dy):
        dpositions = (dy * x).sum(axis=0, dtype=accumulator(dy.dtype))
        return dy * (positions + bias), dpositions.astype(positions.dtype, copy=False)

    return x * (positions + bias), back


def add_positions(x, positions):
    """y[b, t] = x[b, t] + positions[t].   x (B, n, d), positions (n, d) -> y (B, n, d)

    A sum hands its gradient on unchanged: dx = dy; every batch row read the same positions, so
    dpositions = Σ_b dy.

    Saved: nothing.
    """
    dtype = positions.dtype

    def back(dy):
        return dy, dy.sum(axis=0, dtype=accumulator(dy.dtype)).astype(dtype, copy=False)

    return x + positions, back
