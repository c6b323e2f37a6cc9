"""All operations on one page, each checked on the spot: python -m minisum.ops

Formula and saved arrays are the docstrings' own; the bytes are counted and the gradients compared
now, on this machine, at the small sizes that the first line gives.
"""

import inspect
import sys
import textwrap
import types
import unicodedata
from functools import partial

import numpy as np

from minisum import ops
from minisum.gradcheck import RELATIVE_TOLERANCE, gradcheck, grid

SIZES = {"B": 2, "n": 6, "d": 4, "o": 3, "V": 7, "H": 2, "h": 3}
WIDTHS = (36, 58, 6, 7)
HEADINGS = ("operation", "formula, and what is saved for the backward pass", "bytes", "check")


class Draw:
    """Arrays of the sizes above, by letters: draw.normal("B n d")."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def shape(self, letters):
        return tuple(SIZES[s] if s in SIZES else int(s) for s in letters.split())

    def grid(self, letters):
        return grid(self.rng, self.shape(letters))

    def normal(self, letters):
        return self.rng.normal(size=self.shape(letters))

    def uniform(self, letters, low, high):
        return self.rng.uniform(low, high, self.shape(letters))

    def ids(self, letters):
        return self.rng.integers(0, SIZES["V"], self.shape(letters))

    def mask(self):
        """The first text has two tokens of padding."""
        B, n = self.shape("B n")
        return np.arange(n) < np.array([[n - 2]] + [[n]] * (B - 1))

    def qkv(self, values):
        return values("B H n h"), values("B H n h"), values("B H n o")

    def unit_keys(self):
        q, k, v = self.qkv(self.normal)
        return q, k / np.linalg.norm(k, axis=-1, keepdims=True), v


def summation(ids, table, positions, W, mask):
    return ops.direct_summation(ids, table, positions, 1.0, W, mask)


def running_pool(k, v, mask):
    """The state, which has no gradient, left out."""
    (y, _), back = ops.running_softmax_pool(k, v, mask)
    return y, lambda dy: back((dy, None))


def exact(*arguments, op=None, **constants):
    """An example whose gradient is compared with ==: an op that is linear in pieces, on a grid."""
    return True, op, arguments, constants


def smooth(*arguments, op=None, **constants):
    """An example whose gradient is compared with differences."""
    return False, op, arguments, constants


# In reading order. op: the operation with its plain arguments filled in, where keywords cannot.
EXAMPLES = {
    "linear": lambda draw: exact(draw.grid("B n d"), draw.grid("o d"), draw.grid("o")),
    "embed": lambda draw: exact(draw.ids("B n"), draw.grid("V d")),
    "modulate": lambda draw: exact(draw.grid("B n d"), draw.grid("n d"), offset=1.0),
    "add_positions": lambda draw: exact(draw.grid("B n d"), draw.grid("n d")),
    "relu": lambda draw: exact(draw.grid("B n d")),
    "gelu": lambda draw: smooth(draw.normal("B n d")),
    "sigmoid": lambda draw: smooth(draw.normal("B n d")),
    "silu": lambda draw: smooth(draw.normal("B n d")),
    "softplus": lambda draw: smooth(draw.normal("B n d")),
    "sum_tokens": lambda draw: exact(draw.grid("B n d"), draw.mask()),
    "mean_tokens": lambda draw: smooth(draw.normal("B n d"), draw.mask()),
    "cumsum_tokens": lambda draw: exact(draw.grid("B n d"), draw.mask()),
    "dropout": lambda draw: exact(draw.grid("B n d"), draw.ids("B n d") > 2, rate=0.5),
    "layer_norm": lambda draw: smooth(draw.normal("B n d"), draw.normal("d"), draw.normal("d")),
    "rms_norm": lambda draw: smooth(draw.normal("B n d"), draw.normal("d")),
    "cross_entropy": lambda draw: smooth(draw.normal("B n V"), draw.ids("B n")),
    "binary_cross_entropy": lambda draw: smooth(draw.normal("B n"), draw.uniform("B n", 0, 1)),
    "mean_squared_error": lambda draw: smooth(draw.normal("B n"), draw.normal("B n")),
    "linear_cross_entropy": lambda draw: smooth(
        draw.normal("B n d"), draw.normal("V d"), draw.normal("V"), draw.ids("B n")
    ),
    "embed_modulate": lambda draw: exact(
        draw.ids("B n"), draw.grid("V d"), draw.grid("n d"), offset=1.0
    ),
    "relu_pool": lambda draw: exact(draw.grid("B n d"), draw.mask()),
    "direct_summation": lambda draw: exact(
        draw.ids("B n"), draw.grid("V d"), draw.grid("n d"), draw.grid("o d"), draw.mask(),
        op=summation,
    ),
    "split_heads": lambda draw: exact(draw.grid("B n d"), heads=2),
    "merge_heads": lambda draw: exact(draw.grid("B H n h")),
    "attention": lambda draw: smooth(*draw.qkv(draw.normal), draw.mask()),
    "attention_blocked": lambda draw: smooth(*draw.qkv(draw.normal), draw.mask(), block=2),
    "rotate": lambda draw: smooth(draw.normal("B H n 4"), np.arange(SIZES["n"])[None]),
    "full_product": lambda draw: exact(*draw.qkv(draw.grid), draw.grid("B H h o")),
    "causal_product": lambda draw: smooth(
        *draw.qkv(draw.normal), draw.uniform("B H n h", -2, 0), draw.normal("B H h o"), chunk=3
    ),
    "kernel_attention": lambda draw: smooth(
        draw.uniform("B H n h", 0, 1), draw.uniform("B H n h", 0, 1), draw.normal("B H n o"),
        causal=True,
    ),
    "elu_plus_one": lambda draw: smooth(draw.normal("B n d")),
    "delta_rule": lambda draw: smooth(
        *draw.unit_keys(), draw.uniform("B H n 1", 0, 1), draw.uniform("B H n 1", -2, 0), chunk=3
    ),
    "l2_norm": lambda draw: smooth(draw.normal("B n d")),
    "causal_conv": lambda draw: exact(draw.grid("B n d"), draw.grid("3 d")),
    "running_sum": lambda draw: exact(draw.grid("B n d"), draw.grid("B d")),
    "decayed_sum": lambda draw: smooth(
        draw.normal("B n d"), draw.uniform("B n d", -2, 0), draw.normal("B d")
    ),
    "softmax_pool": lambda draw: smooth(draw.normal("B n d"), draw.normal("B n d"), draw.mask()),
    "running_softmax_pool": lambda draw: smooth(
        draw.normal("B n d"), draw.normal("B n d"), draw.mask(), op=running_pool
    ),
}  # fmt: skip


def saved_arrays(back):
    """The arrays that `back` keeps alive, found in its cells: owners of views, and each once."""
    found, seen = {}, set()

    def visit(thing):
        if id(thing) in seen:
            return
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            while isinstance(thing.base, np.ndarray):
                thing = thing.base
            found[id(thing)] = thing
        elif isinstance(thing, types.FunctionType):
            for cell in thing.__closure__ or ():
                visit(cell.cell_contents)
            visit(thing.__defaults__ or ())
        elif isinstance(thing, types.MethodType):
            visit(thing.__func__)
            visit(thing.__self__)
        elif isinstance(thing, (list, tuple, set)):
            for part in thing:
                visit(part)
        elif isinstance(thing, dict):
            for part in thing.values():
                visit(part)

    visit(back)
    return list(found.values())


def check(name, seed=0):
    """(Verdict, bytes that `back` keeps) of the operation `name` at its example."""
    is_exact, op, arguments, constants = EXAMPLES[name](Draw(seed))
    op = op or partial(getattr(ops, name), **constants)
    verdict = gradcheck(op, *arguments, exact=is_exact, seed=seed)
    verdict.op = name
    return verdict, sum(array.nbytes for array in saved_arrays(op(*arguments)[1]))


def formula(op):
    """The docstring's first line up to the shapes."""
    return op.__doc__.splitlines()[0].partition("   ")[0].rstrip(".")


def saved(op):
    """What the docstring's last paragraph says after `Saved:`."""
    return " ".join(op.__doc__.rpartition("Saved:")[2].split()).rstrip(".")


def row(cells):
    """Cells side by side, each wrapped to its column; the last two flush right."""
    columns = []
    for cell, width in zip(cells, WIDTHS, strict=True):
        lines = [textwrap.wrap(line, width, subsequent_indent="  ") for line in cell.splitlines()]
        columns.append([piece for pieces in lines for piece in pieces])
    for i in range(max(map(len, columns))):
        texts = [column[i] if i < len(column) else "" for column in columns]
        left = [padded(text, width) for text, width in zip(texts[:2], WIDTHS[:2], strict=True)]
        right = [text.rjust(width) for text, width in zip(texts[2:], WIDTHS[2:], strict=True)]
        yield "  ".join(left + right).rstrip()


def padded(text, width):
    """`text` and blanks to `width` places; a hat on a letter takes none."""
    return text.ljust(width + sum(map(bool, map(unicodedata.combining, text))))


def table():
    """The lines to print, and the verdicts that are false."""
    example = 8 * SIZES["B"] * SIZES["n"] * SIZES["d"]
    sizes = ", ".join(f"{letter} {size}" for letter, size in SIZES.items())
    lines = [
        f"Checked and counted at {sizes}, in float64: an array (B, n, d) is {example} bytes.",
        f"check: exact means ==, without any tolerance; {RELATIVE_TOLERANCE:.0e} is the largest "
        "relative difference allowed.",
        "",
        *row(HEADINGS),
    ]
    wrong, module = [], None
    for name in EXAMPLES:
        op = getattr(ops, name)
        if op.__module__ != module:
            module = op.__module__
            path = module.replace(".", "/") + ".py"
            lines += ["", f"{path}: {sys.modules[module].__doc__.splitlines()[0]}"]
        verdict, kept = check(name)
        status = "exact" if "exact" in verdict.mode else f"{RELATIVE_TOLERANCE:.0e}"
        if not verdict:
            wrong.append(verdict)
            status = "WRONG"
        signature = f"{name}{inspect.signature(op)}"
        lines += row((signature, f"{formula(op)}\nsaved: {saved(op)}", str(kept), status))
    return lines, wrong


def main():
    """Print the table; the exit status is 1 if a gradient is wrong."""
    sys.stdout.reconfigure(errors="backslashreplace")
    lines, wrong = table()
    print("\n".join([*lines, *map(str, wrong)]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
