"""State tracking: read the elements of a group one by one, and say what their product is so far.

The group S3, all orders of three things, and a text that begins with the token 0:

    read     0    (12)   (23)   (12)   (123)
    answer        (12)   (132)  (13)   (12)      the product of all elements up to that place

Each answer is the state of a machine, and each element changes it: no sum over the elements, in
whatever order, tells it, unless the group is commutative. With two elements it is parity.

Sources: parity and its lengths, Grazzi et al. 2025, "Unlocking state-tracking in linear RNNs
through negative eigenvalues"; moves on a circle of five, Delétang et al. 2023, "Neural networks and
the Chomsky hierarchy"; words over S3, A5 and S5, Merrill et al. 2024, "The illusion of state in
state-space models", and Siems et al. 2025, "DeltaProduct". There parity has no token in front, and
a word may not come twice: here words are drawn without looking back.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np

from minisum.errors import UserError, require_known


def cyclic(m):
    """Addition modulo m: the turns of a circle of m places."""
    return np.array([np.roll(np.arange(m), -turn) for turn in range(m)])


def symmetric(m):
    """All orders of m things, the identity first."""
    return np.array(list(permutations(range(m))))


def alternating(m):
    """Those of them that an even number of exchanges makes."""

    def is_even(order):
        return sum(order[i] > order[j] for j in range(m) for i in range(j)) % 2 == 0

    return np.array(list(filter(is_even, permutations(range(m)))))


# The elements of each group as permutations, and which of them a word is made of (None: all).
GROUPS = {
    "parity": (lambda: cyclic(2), None),
    "modular": (lambda: cyclic(5), (0, 1, 4)),
    "S3": (lambda: symmetric(3), None),
    "A5": (lambda: alternating(5), None),
    "S5": (lambda: symmetric(5), None),
}


def product_table(elements):
    """(m, m): the number of the element x y, x applied after y, of elements x and y by number."""
    number = {tuple(order): i for i, order in enumerate(elements)}
    return np.array([[number[tuple(x[y])] for y in elements] for x in elements])


@dataclass(frozen=True)
class StateTracking:
    """Words of `length` elements at most, after a token 0; element i is the token 1 + i.

    min_length: words of min_length ... length elements, uniformly, and 0 after each; by default
    all of `length`. last: ask at the last element only, not at every one. Raises UserError for an
    unknown group, and for words of several lengths that are asked at every place.
    """

    group: str = "S3"
    length: int = 24
    min_length: int = None
    last: bool = False

    def __post_init__(self):
        require_known("group", self.group, GROUPS)
        shortest = self.length if self.min_length is None else self.min_length
        if not 1 <= shortest <= self.length:
            raise UserError(f"words need 1 <= min_length <= length, not {shortest}, {self.length}")
        if shortest < self.length and not self.last:
            raise UserError("words of several lengths are asked at their last place only")

    @cached_property
    def table(self):
        return product_table(GROUPS[self.group][0]())

    @property
    def vocab(self):
        return 1 + len(self.table)

    def draw(self, rng, rows) -> dict[str, np.ndarray]:
        """ids (rows, 1 + n); places (rows, N) and targets (rows, N), N = n or 1: int32.

        A target is a token, as the elements are.
        """
        n = self.length
        _, letters = GROUPS[self.group]
        words = rng.choice(len(self.table) if letters is None else letters, (rows, n))
        states = words.copy()
        for t in range(1, n):
            states[:, t] = self.table[words[:, t], states[:, t - 1]]
        ids = np.concatenate([np.zeros((rows, 1), int), 1 + words], axis=1)
        places = np.broadcast_to(np.arange(1, n + 1), (rows, n))
        if self.last:
            ends = rng.integers(self.min_length or n, n, (rows, 1), endpoint=True)
            ids[np.arange(n + 1) > ends] = 0
            states, places = np.take_along_axis(states, ends - 1, axis=1), ends
        named = {"ids": ids, "places": places, "targets": 1 + states}
        return {name: array.astype(np.int32) for name, array in named.items()}
