"""Packed windows split into their documents, and put together again.

A window of tokens may hold the end of one document, all of another and the start of a third. If no
document may see another, each becomes a separate row, padded on the right, for the mixer, the only
part that mixes tokens. That works for every mixer; layers that act on single tokens stay packed,
without padding.
"""

from minisum.backend import array_module


class Documents:
    """Where the documents of a batch of windows are.

    starts (B, n) bool, True at the first token of each document; a window's first token always
    begins one. S documents, the longest of m tokens, make rows (S, m): `shape`. places (B, n): how
    many tokens of its document stand before each token.
    """

    def __init__(self, starts):
        xp = array_module(starts)
        starts = starts.copy()
        starts[:, 0] = True
        first = xp.flatnonzero(starts)
        document = xp.cumsum(starts.reshape(-1)) - 1
        place = xp.arange(starts.size) - first[document]
        self.places = place.reshape(starts.shape)
        self.shape = (len(first), int(place.max()) + 1)
        self.index = document * self.shape[1] + place  # among the numbers of the rows
        mask = xp.zeros(self.shape, bool)
        mask.reshape(-1)[self.index] = True
        self.mask = mask

    def apart(self, x):
        """x (B, n, d) -> rows (S, m, d), padded with zeros. Its backward pass is `together`."""
        d = x.shape[-1]
        rows = array_module(x).zeros((*self.shape, d), x.dtype)
        rows.reshape(-1, d)[self.index] = x.reshape(-1, d)
        return rows

    def together(self, rows):
        """rows (S, m, d) -> x (B, n, d). Its backward pass is `apart`."""
        d = rows.shape[-1]
        return rows.reshape(-1, d)[self.index].reshape(*self.places.shape, d)

    def mix(self, mixer, params, x):
        """y, back of a mixer that is applied to each document alone.   x (B, n, d) -> y like x"""
        rows, back_mixer = mixer(params, self.apart(x), self.mask)

        def back(dy):
            drows, dparams = back_mixer(self.apart(dy))
            return self.together(drows), dparams

        return self.together(rows), back
