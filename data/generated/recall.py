"""Multi-query associative recall: remember pairs, and answer when a key comes again.

One example of 20 tokens with 4 pairs, keys in capitals, values in small letters, · a filler:

    read    C x A p F k B q · · A · C · · · F · B ·
    answer                  p   x       k   q

First the pairs, key before value; then at even places each key once more, soon rather than late,
and what is asked of the model is the key's value, at that very place. The answer never stands in
the text after the question. Keys are drawn from 1 ... V/2 - 1 and values from V/2 ... V - 1, both
without repetition within an example.

Source: Arora et al. 2024, "Zoology: Measuring and Improving Recall in Efficient Language Models",
section 3 and its multiquery_ar.py. There a filler may be any number and so, now and then, a key
that seems to be asked for and is not: here it is never one of the example's keys.
"""

from dataclasses import dataclass

import numpy as np

from minisum.errors import UserError


@dataclass(frozen=True)
class Recall:
    """vocab V, length n, pairs N; power a: a question comes i places late with weight i^(a - 1).

    random_filler: places without a question hold random numbers, else 0. Raises UserError unless
    n is even, 4 N <= n < V, and there are N keys.
    """

    vocab: int = 8192
    length: int = 64
    pairs: int = 4
    power: float = 0.01
    random_filler: bool = True

    def __post_init__(self):
        n, N, V = self.length, self.pairs, self.vocab
        if n % 2 or n < 4 * N or N < 1:
            raise UserError(f"{N} pairs need an even length of at least {4 * max(N, 1)}, not {n}")
        if V % 2 or n >= V:
            raise UserError(f"{n} tokens need an even vocabulary larger than that, not {V}")

    def draw(self, rng, rows) -> dict[str, np.ndarray]:
        """ids (rows, n), places (rows, N) of the questions, targets (rows, N) the answers: int32.

        Column i of places and targets belongs to the i-th pair of the row.
        """
        n, N, half = self.length, self.pairs, self.vocab // 2
        keys = 1 + distinct(rng, half - 1, rows, N)
        values = half + distinct(rng, half, rows, N)
        late = np.arange(1, n // 2 - N + 1)
        places = 2 * N + 2 * choose(rng, late ** (self.power - 1), rows, N)

        ids = np.zeros((rows, n), np.int64)
        if self.random_filler:
            ids = past(rng.integers(0, self.vocab - N, (rows, n)), keys)
        ids[:, 0 : 2 * N : 2] = keys
        ids[:, 1 : 2 * N : 2] = values
        np.put_along_axis(ids, places, keys, axis=1)
        named = {"ids": ids, "places": places, "targets": values}
        return {name: array.astype(np.int32) for name, array in named.items()}


def distinct(rng, below, rows, count):
    """(rows, count), uniform over 0 ... below - 1, no two alike in a row."""
    drawn = np.empty((rows, count), np.int64)
    for i in range(count):
        drawn[:, i : i + 1] = past(rng.integers(0, below - i, (rows, 1)), drawn[:, :i])
    return drawn


def past(numbers, taken):
    """The numbers (rows, ...) moved up past those of `taken` (rows, k), different in each row.

    What was uniform over m - k numbers becomes uniform over the m - k of m that are not taken:
    counting up past each, from the smallest, skips exactly these.
    """
    for one in np.sort(taken, axis=1).T:
        numbers += numbers >= one[:, None]
    return numbers


def choose(rng, weights, rows, count):
    """(rows, count): draws without replacement from 0 ... len(weights) - 1, one after another.

    The first arrival among clocks that run at the rates `weights` is a draw by these weights, and
    the next arrival is one among the rest: the order of exponential waiting times.
    """
    waiting = rng.exponential(size=(rows, len(weights))) / weights
    return np.argsort(waiting, axis=1)[:, :count]
