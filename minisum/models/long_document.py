"""Direct summation on documents of any length, in the memory of their ids.

Tokens meet nowhere but in a sum, so a document can be cut as a batch can. Forward keeps the running
sum and nothing else; backward reads each stretch of the document again. A step costs four products
a token with W instead of three, and no array grows with the document but its ids and mask.
"""

import numpy as np

from minisum.backend import add_into, array_module
from minisum.models.classifier import POSITION_BIAS, SummationClassifier
from minisum.ops import direct_summation
from minisum.shards import Workers

# Numbers in one array of a stretch: 1 MB in float32 for a core's cache, 64 MB to fill a GPU.
HOST_NUMBERS, DEVICE_NUMBERS = 2**18, 2**24


class LongDocumentClassifier(SummationClassifier):
    """`SummationClassifier`, with the same parameters, for texts of any number of tokens.

    A table with a place for each of a million tokens would be larger than all the rest, so the
    positions repeat: token t stands at t mod max_len. A text of up to max_len tokens is read just
    as `SummationClassifier` reads it; a longer one is a row of such texts whose features add up.

    threads: how many stretches of one document are under way at a time; the documents of a batch
    take turns then, `Shards(model)`. stretch: tokens a stretch, by default what fits the cache. The
    same thread count and stretch give the same bits on the host.
    """

    def __init__(self, *sizes, threads=None, stretch=None, **options):
        super().__init__(*sizes, **options)
        self.workers, self.stretch = Workers(threads), stretch

    def features(self, params, ids, mask):
        xp = array_module(ids)
        (B, n), threads = ids.shape, self.workers.count
        table, W = params["embedding"], params["project.W"]
        numbers = HOST_NUMBERS if xp is np else DEVICE_NUMBERS
        size = self.stretch or max(1, numbers // self.width)
        pieces = [(b, *cut) for b in range(B) for cut in stretches(n, self.max_len, size)]

        def read(piece):
            """The features of one stretch, (R, d), its place in `positions`, and `back`."""
            b, start, stop, columns = piece
            words = ids[b, start:stop].reshape(-1, columns)
            real = None if mask is None else mask[b, start:stop].reshape(-1, columns)
            first = start % self.max_len
            places = slice(first, first + columns)
            positions = params["positions"][places]
            said, back_said = direct_summation(words, table, positions, POSITION_BIAS, W, real)
            return said, places, back_said

        def add_up(worker):
            total = xp.zeros((B, self.width), table.dtype)
            for piece in pieces[worker::threads]:
                total[piece[0]] += read(piece)[0].sum(axis=0)
            return total

        first, *others = self.workers.each(add_up)
        features = sum(others, first)
        count = n if mask is None else mask.sum(axis=1)[:, None]
        divisor = xp.maximum(count, 1) ** self.power
        features /= divisor

        def back(dfeatures, grads):
            dtotal = (dfeatures / divisor).astype(table.dtype)
            owned = [grads]
            while len(owned) < threads:
                names = ("embedding", "positions", "project.W")
                owned.append({name: xp.zeros_like(params[name]) for name in names})

            def work(worker):
                mine = owned[worker]
                for piece in pieces[worker::threads]:
                    said, places, back_said = read(piece)
                    dsaid = xp.broadcast_to(dtotal[piece[0]], said.shape)
                    _, dtable, dpositions, dW, _ = back_said(dsaid)
                    dtable.add_to(mine["embedding"])
                    add_into(mine["positions"][places], dpositions)
                    mine["project.W"] += dW

            self.workers.each(work)
            for other in owned[1:]:
                for name, gradient in other.items():
                    grads[name] += gradient

        return features, back


def stretches(n, period, size):
    """Cut tokens 0..n-1 into (start, stop, columns) of at most `size` tokens each.

    columns: how many tokens stand in a row before the positions, which repeat every `period`
    tokens, start anew: `period` where a stretch is a number of whole rows, else its length.
    """
    start = 0
    while start < n:
        room = period - start % period
        longest = min(size, n - start)
        if room == period <= longest:
            stop, columns = start + longest // period * period, period
        else:
            columns = min(longest, room)
            stop = start + columns
        yield start, stop, columns
        start = stop
