"""Direct summation on documents of any length, in the memory of their ids.

Tokens interact only in a sum, so a document can be cut into chunks as a batch into shards. Forward
keeps only the running sum; backward computes each chunk again. A step costs four products per token
with W instead of three, and no array grows with the document but its ids and mask.
"""

import numpy as np

from minisum.backend import array_module
from minisum.models.classifier import SummationClassifier
from minisum.ops import direct_summation
from minisum.params import add
from minisum.shards import Workers

# Numbers in one array of a chunk: 1 MB in float32 for a core's cache, 64 MB to fill a GPU.
HOST_NUMBERS, DEVICE_NUMBERS = 2**18, 2**24


class LongDocumentClassifier(SummationClassifier):
    """`SummationClassifier`, with the same parameters, for texts of any number of tokens.

    A table with a position for each of a million tokens would be larger than all other parameters,
    so positions repeat: token t has position t mod max_len. A text of up to max_len tokens is read
    as by `SummationClassifier`; a longer one as a sequence of such texts whose features are summed.
    A batch without longer texts is read whole, unless `chunk` is given.

    threads: how many chunks of a document are computed at a time; the documents of a batch then
    follow one another, `Shards(model)`. chunk: tokens per chunk, by default what fits the cache.
    The same thread count and chunk give the same bits on the host.
    """

    packs = False  # the chunks cut the texts

    def __init__(self, *sizes, threads=None, chunk=None, **options):
        super().__init__(*sizes, **options)
        self.workers, self.chunk = Workers(threads), chunk

    def places(self, ids):
        xp = array_module(ids)
        return xp.broadcast_to(xp.arange(ids.shape[1]) % self.max_len, ids.shape)

    def features(self, params, ids, mask):
        if ids.shape[1] <= self.max_len and self.chunk is None:
            return super().features(params, ids, mask)
        xp = array_module(ids)
        (B, n), threads = ids.shape, self.workers.count
        table, W = params["embedding"], params["project"]["W"]
        numbers = HOST_NUMBERS if xp is np else DEVICE_NUMBERS
        size = self.chunk or max(1, numbers // self.width)
        cuts = [(b, *cut) for b in range(B) for cut in chunks(n, self.max_len, size)]

        def read(b, start, stop, columns):
            """The features of one chunk, (R, d), its rows of `positions`, and `back`."""
            words = ids[b, start:stop].reshape(-1, columns)
            real = None if mask is None else mask[b, start:stop].reshape(-1, columns)
            first = start % self.max_len
            places = slice(first, first + columns)
            positions = params["positions"][places]
            sums, back_sums = direct_summation(
                words, table, positions, self.position_offset, W, real
            )
            return sums, places, back_sums

        def sum_chunks(worker):
            total = xp.zeros((B, self.width), table.dtype)
            for cut in cuts[worker::threads]:
                total[cut[0]] += read(*cut)[0].sum(axis=0)
            return total

        first, *others = self.workers.each(sum_chunks)
        features = sum(others, first)
        count = n if mask is None else mask.sum(axis=1)[:, None]
        divisor = xp.maximum(count, 1) ** self.power
        features /= divisor

        def back(dfeatures, grads):
            dtotal = (dfeatures / divisor).astype(table.dtype)
            owned = [grads]
            while len(owned) < threads:
                arrays = {name: xp.zeros_like(params[name]) for name in ("embedding", "positions")}
                owned.append(arrays | {"project": {"W": xp.zeros_like(W)}})

            def add_chunks(worker):
                mine = owned[worker]
                for cut in cuts[worker::threads]:
                    sums, places, back_sums = read(*cut)
                    dsums = xp.broadcast_to(dtotal[cut[0]], sums.shape)
                    _, dtable, dpositions, dW, _ = back_sums(dsums)
                    views = mine | {"positions": mine["positions"][places]}
                    gradients = {"embedding": dtable, "positions": dpositions}
                    add(views, gradients | {"project": {"W": dW}})

            self.workers.each(add_chunks)
            for other in owned[1:]:
                add(grads, other)

        return features, back


def chunks(n, period, size):
    """Cut tokens 0..n-1 into (start, stop, columns) of at most `size` tokens each.

    columns: how many tokens stand in a row before the positions, which repeat every `period`
    tokens, start anew: `period` where a chunk is a number of whole rows, else its length.
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
