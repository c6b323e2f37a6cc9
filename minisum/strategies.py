"""Hypothesis strategies for ops: shapes and a seed are drawn, arrays come from NumPy.

    from hypothesis import given
    from minisum.gradcheck import gradcheck
    from minisum.strategies import cases

    @given(cases(B=(1, 3), n=(1, 6), d=(1, 5)))
    def test_my_op(case):
        assert gradcheck(my_op, case.grid("B n d"), case.grid("d"), exact=True, seed=case.seed)

Drawing whole arrays entry by entry would be slow and would shrink to numbers such as 1e-300; a
shape and a seed are drawn fast, shrink well, and print as one line that repeats the failure.
Needs the package `hypothesis`.
"""

import numpy as np
from hypothesis import strategies as st

from minisum import gradcheck

LAYOUTS = ("C", "Fortran", "strided", "reversed")
MASKS = ("all real", "right padding", "left padding", "holes", "one row all padding")


class Case:
    """Named sizes, a seed, and arrays made from them.

    Every array is read-only (an op that writes to its input fails at once) and comes in one of
    four memory layouts, so that no op can rely on contiguity. The same calls in the same order
    give the same arrays. `module` is where arrays are put: numpy, or cupy.
    """

    def __init__(self, sizes, seed, module=np):
        self.sizes, self.seed, self.module = sizes, seed, module
        self.rng = np.random.default_rng(seed)

    def __repr__(self):
        sizes = ", ".join(f"{letter}={size}" for letter, size in self.sizes.items())
        return f"Case({sizes}, seed={self.seed})"

    def __getattr__(self, letter):
        sizes = self.__dict__.get("sizes", {})
        if letter in sizes:
            return sizes[letter]
        raise AttributeError(f"no size {letter!r} among {sorted(sizes)}")

    def shape(self, letters):
        """(B, n, d) for "B n d"; plain numbers may stand among the letters."""
        return tuple(int(s) if s.isdigit() else self.sizes[s] for s in letters.split())

    def grid(self, letters, low=-1.0, high=1.0):
        """Multiples of 1/8, for the exact mode of gradcheck."""
        return self._finish(gradcheck.grid(self.rng, self.shape(letters), low, high))

    def normal(self, letters, scale=1.0):
        """Normal numbers, for smooth ops."""
        return self._finish(self.rng.normal(0.0, scale, self.shape(letters)))

    def uniform(self, letters, low, high):
        """Uniform numbers in [low, high)."""
        return self._finish(self.rng.uniform(low, high, self.shape(letters)))

    def ids(self, letters, below, low=0):
        """Integers in [low, below), repeats likely."""
        return self._finish(self.rng.integers(low, below, self.shape(letters)))

    def keep(self, letters, rate=0.5):
        """Booleans, True with probability 1 - rate."""
        return self._finish(self.rng.random(self.shape(letters)) >= rate)

    def mask(self, letters="B n"):
        """A padding mask (B, n): no padding, right, left, holes, or with an empty row."""
        B, n = self.shape(letters)
        kind = self.rng.choice(MASKS)
        if kind == "holes":
            mask = self.rng.random((B, n)) < 0.6
        else:
            length = self.rng.integers(1, n, (B, 1), endpoint=True)
            if kind == "all real":
                length[:] = n
            if kind == "one row all padding":
                length[self.rng.integers(B)] = 0
            mask = np.arange(n) < length
            if kind == "left padding":
                mask = mask[:, ::-1]
        return self._finish(mask)

    def _finish(self, array):
        array = self.module.asarray(array)
        layout = self.rng.choice(LAYOUTS)
        if layout == "Fortran":
            array = self.module.asfortranarray(array)
        elif layout == "strided" and array.ndim:
            wide = self.module.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
            wide[..., ::2] = array
            array = wide[..., ::2]
        elif layout == "reversed" and array.ndim:
            array = self.module.ascontiguousarray(array[..., ::-1])[..., ::-1]
        if self.module is np:
            array.flags.writeable = False
        return array


def seeds():
    """Seeds for np.random.default_rng."""
    return st.integers(0, 2**32 - 1)


def cases(module=np, **ranges):
    """Cases with each letter's size drawn from its (least, most) range, ends included."""
    sizes = st.fixed_dictionaries({letter: st.integers(*ends) for letter, ends in ranges.items()})
    return st.builds(lambda drawn, seed: Case(drawn, seed, module), sizes, seeds())
