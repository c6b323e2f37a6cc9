"""How far every operation is from float64: python -m tests.numerics

The inputs are rounded to the narrow type first, so what is left is the operation's own error:
the largest difference over the largest value, of the result and of the gradients. All numbers are
positive, so nothing cancels; each sum over tokens has as many terms as the first line says.
"""

import importlib.util
import sys

import numpy as np

from minisum import op_table as page
from minisum import ops

SIZES = {"B": 2, "n": 4096, "d": 8, "o": 8, "V": 64, "H": 2, "h": 4}
# What takes the square of n is shorter, and a document's decays must not fade all but its end.
# NumPy's float32 exp of a number just below 0 is 2e-9 too low on average: 4,096 decays, each an exp
# of its own product, add that up to 1e-5.
# A gate of `mlstm` moves numerator and denominator alike: of its two gradients little is left.
SQUARE = ("attention", "attention_with_dropout", "kernel_cross_entropy", "rectified_attention")
SHORT = dict.fromkeys((*SQUARE, "delta_rule", "mlstm"), 512)
SHORT["selective_scan"] = 1024
DTYPES = ("float64", "float32")
NAMES = tuple(page.EXAMPLES)


class Positive(page.Draw):
    """Numbers between 1/16 and 1/4, so that nothing cancels; decays just below 1."""

    def grid(self, letters):
        return self.normal(letters)

    def normal(self, letters):
        return self.rng.uniform(1 / 16, 1 / 4, self.shape(letters))

    def uniform(self, letters, low, high):
        if high <= 0:  # a log decay
            return self.rng.uniform(-1e-3, 0, self.shape(letters))
        return self.rng.uniform(low, high, self.shape(letters))


def flat(result):
    """The arrays of a nested result, in order."""
    if isinstance(result, (tuple, list)):
        return [array for part in result for array in flat(part)]
    if hasattr(result, "dense"):
        result = result.dense()
    return [] if result is None else [np.asarray(result)]


def positive_like(rng, result, dtype):
    """A cotangent of the result's structure."""
    if isinstance(result, (tuple, list)):
        return tuple(positive_like(rng, part, dtype) for part in result)
    if result is None:
        return None
    if np.ndim(result) == 0:
        return 1.0
    return rng.uniform(1 / 16, 1 / 4, np.shape(result)).astype(np.float32).astype(dtype)


def results(name, dtype, sizes=None):
    """(forward arrays, gradients) of an operation at its example, in `dtype`; same inputs in all.

    The inputs are numbers that float32 has, so both types start from the same.
    """
    sizes = sizes or SIZES | {"n": SHORT.get(name, SIZES["n"])}
    _, wrap, arguments = page.EXAMPLES[name](Positive(0, sizes))
    arguments = [
        a.astype(np.float32).astype(dtype) if a.dtype.kind == "f" else a for a in arguments
    ]
    y, back = wrap(getattr(ops, name))(*arguments)
    gradients = back(positive_like(np.random.default_rng(1), y, dtype))
    return flat(y), flat(gradients)


def distance(arrays, truth):
    """The largest difference over the largest value, in all of the arrays."""
    difference = max(
        np.abs(array.astype(np.float64) - true).max(initial=0)
        for array, true in zip(arrays, truth, strict=True)
    )
    return float(difference / max(np.abs(true).max(initial=0) for true in truth))


def errors(name, dtype):
    """(error of the result, error of the gradients) against float64."""
    found = results(name, dtype)
    truth = results(name, "float64")
    return tuple(distance(a, b) for a, b in zip(found, truth, strict=True))


def installed(library):
    return importlib.util.find_spec(library) is not None


def shown(error):
    return f"{error:.1e}" if error else "0"


def main():
    print(", ".join(f"{letter} {size}" for letter, size in SIZES.items()))
    print(f"{'operation':<22}" + "".join(f"{f'{d} y':>12}{'gradients':>12}" for d in DTYPES[1:]))
    for name in NAMES:
        cells = [error for dtype in DTYPES[1:] for error in errors(name, dtype)]
        print(f"{name:<22}" + "".join(f"{shown(cell):>12}" for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
