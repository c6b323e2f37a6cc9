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
    shape, wide = table.shape, accumulator(table.dtype)

    def back(dx, add_to=None):
        dtable = array_module(dx).zeros(shape, wide) if add_to is None else add_to
        add_rows(dtable, ids, dx)
        return None, dtable

    return table[ids], back


def modulate(x, positions, bias):
    """y[b, t] = x[b, t] ⊙ (positions[t] + bias).   x (B, n, d), positions (n, d) -> y (B, n, d)

    The summation papers' way to tell tokens where they stand: each place amplifies or mutes the
    channels of whatever word is there. `bias` (1 or 2 in the published models) lets an untrained
    position pass its word on unchanged in size.

    Product rule: dx = dy ⊙ (positions + bias); dpositions = Σ_b dy ⊙ x.

    Saved: x, positions.
    """

    def back(dy):
        return dy * (positions + bias), (dy * x).sum(axis=0, dtype=accumulator(dy.dtype))

    return x * (positions + bias), back


def add_positions(x, positions):
    """y[b, t] = x[b, t] + positions[t].   x (B, n, d), positions (n, d) -> y (B, n, d)

    A sum hands its gradient on unchanged: dx = dy; every batch row read the same positions, so
    dpositions = Σ_b dy.

    Saved: nothing.
    """

    def back(dy):
        return dy, dy.sum(axis=0, dtype=accumulator(dy.dtype))

    return x + positions, back
