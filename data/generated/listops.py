"""ListOps: nested lists of digits to be evaluated, with the rules of Long Range Arena.

One example, in full: the tokens

    [MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]

and the class, its value: MAX(4, 3, MIN(2, 3) = 2, 1, 0, MED(1, 5, 8, 9, 2) = 5) = 5. MED is the
median, the mean of the two middle values rounded down; SM the sum modulo 10.

A tree above the deepest level is a digit with probability 3/4, else an operator (one of four) over
2 to `max_args` trees of the next level; on the deepest level, number `max_depth`, it is a digit.
Trees whose number of tokens is strictly between `min_length` and `max_length` are kept. The
parentheses that the original writes around pairs say nothing and are not tokens.

Source: Tay et al. 2021, "Long Range Arena", and its listops.py; the task is Nangia and Bowman 2018.
There the order of the examples is that of a Python set, which changes from process to process.
"""

import hashlib
import math
from dataclasses import dataclass
from statistics import median

import numpy as np

from minisum.errors import UserError
from minisum.text.batches import Ragged

OPERATORS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(median(values)),
    "[SM": lambda values: sum(values) % 10,
}
END = "]"
# The number of a token is its place here plus one; 0 is padding.
SYMBOLS = (*"0123456789", *OPERATORS, END)
VOCAB = len(SYMBOLS) + 1
IDS = {symbol: number for number, symbol in enumerate(SYMBOLS, start=1)}
FIRST_OPERATOR, END_ID = IDS["[MIN"], IDS[END]

OPERATOR_PROBABILITY = 0.25
PATIENCE = 100_000  # trees in a row without a new one that fits, before giving up


@dataclass(frozen=True)
class Rules:
    """Which trees there are and which are kept; the defaults are Long Range Arena's."""

    max_depth: int = 10
    max_args: int = 10
    min_length: int = 500
    max_length: int = 2000


@dataclass(frozen=True)
class Examples:
    """Token numbers and values (N,) int32."""

    tokens: Ragged
    values: np.ndarray


def load(train=96_000, validation=2_000, test=2_000, seed=0, rules=None) -> dict[str, Examples]:
    """Splits "train", "validation" and "test" of distinct trees, the same for the same seed.

    Test trees are drawn first and training trees last: a larger training set keeps the test set.
    Raises UserError if the rules leave too few distinct trees.
    """
    trees = distinct_trees(seed, rules or Rules())
    splits = {}
    for name, size in {"test": test, "validation": validation, "train": train}.items():
        drawn = [next(trees) for _ in range(size)]
        values = np.array([evaluate(tree) for tree in drawn], np.int32)
        splits[name] = Examples(Ragged.from_list(drawn), values)
    return splits


def distinct_trees(seed, rules):
    """Yield trees that fit the rules, none of them twice, as lists of token numbers."""
    if rules.max_depth < 1 or rules.max_args < 2:
        raise UserError(
            f"ListOps trees need at least 1 level and operators of 2 arguments, not "
            f"{rules.max_depth} and {rules.max_args}"
        )
    draw = _uniform(np.random.default_rng(seed)).__next__
    seen, misses = set(), 0
    while misses < PATIENCE:
        tree = []
        fits = _grow(tree, draw, 1, rules) and len(tree) > rules.min_length
        digest = hashlib.blake2b(bytes(tree), digest_size=16).digest() if fits else None
        misses += 1
        if fits and digest not in seen:
            seen.add(digest)
            misses = 0
            yield tree
    raise UserError(
        f"after {len(seen):,} different ListOps trees, none of the next {PATIENCE:,} was new and "
        f"had between {rules.min_length} and {rules.max_length} tokens: allow more depth or other "
        f"lengths, or ask for fewer examples"
    )


def _grow(tree, draw, depth, rules):
    """Append a random subtree that stands at `depth`; False as soon as the tree is too long."""
    if depth == rules.max_depth or draw() >= OPERATOR_PROBABILITY:
        tree.append(1 + int(10 * draw()))
        return len(tree) < rules.max_length
    tree.append(FIRST_OPERATOR + int(len(OPERATORS) * draw()))
    for _ in range(2 + int((rules.max_args - 1) * draw())):
        if not _grow(tree, draw, depth + 1, rules):
            return False
    tree.append(END_ID)
    return len(tree) < rules.max_length


def _uniform(rng):
    """Numbers in [0, 1), one by one but drawn in blocks, which is ten times as fast."""
    while True:
        yield from rng.random(4096).tolist()


def evaluate(tree, levels=None) -> int | None:
    """The value of a tree of token numbers.

    With `levels`, operators below that depth (the root's is 1) are left out, and with them those
    above whose arguments are all left out; None if nothing remains. Raises ValueError for what is
    no tree.
    """
    tokens = map(int, tree)
    value = _value(next(tokens, None), tokens, math.inf if levels is None else levels)
    if next(tokens, None) is not None:
        raise ValueError("tokens after the end of the tree")
    return value


def _value(token, tokens, levels):
    """The value of the subtree that begins with `token` and goes on in the iterator `tokens`."""
    if token is None:
        raise ValueError("the tree does not end")
    if 1 <= token <= 10:
        return token - 1
    if not FIRST_OPERATOR <= token < END_ID:
        raise ValueError(f"token {token} begins no tree")
    values = []
    while (following := next(tokens, None)) != END_ID:
        values.append(_value(following, tokens, levels - 1))
    known = [value for value in values if value is not None]
    return OPERATORS[SYMBOLS[token - 1]](known) if known and levels > 0 else None
