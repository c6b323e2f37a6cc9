"""All operations on one page, each checked on the spot: python -m minisum.ops [NAME]

Formulas and saved arrays come from the docstrings. The saved bytes are counted and the gradients
checked on the spot, for the textbook form at the small sizes of the first line. The gain of the
faster forms is measured too, at a realistic size. With NAME: its docstring instead.
"""

import argparse
import functools
import inspect
import os
import sys
import textwrap
import time
from functools import partial

import numpy as np

from minisum import ops
from minisum.errors import did_you_mean
from minisum.fast import FORMS
from minisum.gradcheck import RELATIVE_TOLERANCE, gradcheck, grid
from minisum.saved import saved_arrays

SIZES = {"B": 2, "n": 6, "d": 4, "o": 3, "V": 7, "H": 2, "h": 3}
REAL = {"B": 4, "n": 512, "d": 256, "o": 256, "V": 4096, "H": 4, "h": 64}
LONG = REAL | {"B": 1, "n": 2048}  # for the forms that only long texts take
# For what keeps a state of many numbers for every token.
HEAVY = dict.fromkeys(
    ("latent_average", "log_linear_product", "mlstm", "selective_scan", "slot_product"),
    [REAL | {"B": 1, "n": 256, "d": 64, "o": 64}],
)


class Draw:
    """Arrays of the sizes above, by letters: draw.normal("B n d")."""

    def __init__(self, seed, sizes=SIZES):
        self.rng, self.sizes = np.random.default_rng(seed), sizes

    def shape(self, letters):
        return tuple(self.sizes[s] if s in self.sizes else int(s) for s in letters.split())

    def grid(self, letters):
        return grid(self.rng, self.shape(letters))

    def normal(self, letters):
        return self.rng.normal(size=self.shape(letters))

    def uniform(self, letters, low, high):
        return self.rng.uniform(low, high, self.shape(letters))

    def ids(self, letters):
        return self.rng.integers(0, self.sizes["V"], self.shape(letters))

    def mask(self):
        """The first text has two tokens of padding."""
        B, n = self.shape("B n")
        return np.arange(n) < np.array([[n - 2]] + [[n]] * (B - 1))

    def qkv(self, values):
        return values("B H n h"), values("B H n h"), values("B H n o")

    def unit_keys(self):
        q, k, v = self.qkv(self.normal)
        return q, k / np.linalg.norm(k, axis=-1, keepdims=True), v


def summation(op):
    return lambda ids, table, positions, W, mask: op(ids, table, positions, 1.0, W, mask)


def stateless(op):
    """The state, which has no gradient, left out."""

    @functools.wraps(op)
    def without(*arguments):
        (y, _), back = op(*arguments)
        return y, lambda dy: back((dy, None))

    return without


def exact(*arguments, wrap=None, **constants):
    """An example whose gradient is compared with ==: an op that is linear in pieces, on a grid."""
    return True, wrap or (lambda op: partial(op, **constants)), arguments


def smooth(*arguments, wrap=None, **constants):
    """An example whose gradient is compared with differences."""
    return False, wrap or (lambda op: partial(op, **constants)), arguments


# In reading order. wrap: fills in what keywords cannot.
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
    "dropout": lambda draw: exact(draw.grid("B n d"), draw.ids("B n d") > 2, rate=0.5),
    "layer_norm": lambda draw: smooth(draw.normal("B n d"), draw.normal("d"), draw.normal("d")),
    "rms_norm": lambda draw: smooth(draw.normal("B n d"), draw.normal("d")),
    "cross_entropy": lambda draw: smooth(draw.normal("B n V"), draw.ids("B n")),
    "binary_cross_entropy": lambda draw: smooth(draw.normal("B n"), draw.uniform("B n", 0, 1)),
    "mean_squared_error": lambda draw: smooth(draw.normal("B n"), draw.normal("B n")),
    "linear_cross_entropy": lambda draw: smooth(
        draw.normal("B n d"), draw.normal("V d"), draw.normal("V"), draw.ids("B n")
    ),
    "direct_summation": lambda draw: exact(
        draw.ids("B n"), draw.grid("V d"), draw.grid("n d"), draw.grid("o d"), draw.mask(),
        wrap=summation,
    ),
    "split_heads": lambda draw: exact(draw.grid("B n d"), heads=2),
    "merge_heads": lambda draw: exact(draw.grid("B H n h")),
    "attention": lambda draw: smooth(*draw.qkv(draw.normal), draw.mask()),
    "attention_with_dropout": lambda draw: smooth(
        *draw.qkv(draw.normal), draw.ids("B H n n") > 2, rate=0.5
    ),
    "window_attention": lambda draw: smooth(
        *draw.qkv(draw.normal), draw.mask(), window=3, causal=True
    ),
    "rectified_attention": lambda draw: smooth(
        *draw.qkv(draw.normal), draw.mask(), causal=True
    ),
    "rotate": lambda draw: smooth(draw.normal("B H n 4"), np.arange(draw.sizes["n"])[None]),
    "full_product": lambda draw: exact(*draw.qkv(draw.grid), draw.grid("B H h o")),
    "causal_product": lambda draw: smooth(
        *draw.qkv(draw.normal), draw.uniform("B H n h", -2, 0), draw.normal("B H h o")
    ),
    "kernel_attention": lambda draw: smooth(
        draw.uniform("B H n h", 0, 1), draw.uniform("B H n h", 0, 1), draw.normal("B H n o"),
        causal=True,
    ),
    "elu_plus_one": lambda draw: smooth(draw.normal("B n d")),
    "hedgehog": lambda draw: smooth(
        draw.normal("B H n h"), draw.normal("h h"), draw.normal("h")
    ),
    "favor": lambda draw: smooth(draw.normal("B H n h"), omega=draw.normal("5 h")),
    "log_normal_query": lambda draw: smooth(draw.normal("B H n h"), draw.uniform("H", 1, 2)),
    "log_normal_key": lambda draw: smooth(draw.normal("B H n h"), draw.uniform("H", 1, 2)),
    "taylor": lambda draw: smooth(draw.normal("B n h")),
    "focused": lambda draw: smooth(draw.uniform("B H n h", 0.1, 1), draw.normal("H h")),
    "norm_aware_query": lambda draw: smooth(draw.uniform("B n h", 0.1, 1)),
    "norm_aware_key": lambda draw: smooth(draw.normal("B n h")),
    "dpfp": lambda draw: smooth(draw.normal("B n h")),
    "latent_average": lambda draw: smooth(
        draw.uniform("B H n h", 0, 1), draw.normal("B H n h"), draw.normal("B H n o"),
        wrap=stateless,
    ),
    "kernel_cross_entropy": lambda draw: smooth(
        draw.uniform("B H n h", 0, 1), draw.uniform("B H n h", 0, 1),
        draw.uniform("B H n n", 0, 1), draw.mask(),
    ),
    "delta_rule": lambda draw: smooth(
        *draw.unit_keys(), draw.uniform("B H n 1", 0, 1), draw.uniform("B H n 1", -2, 0)
    ),
    "l2_norm": lambda draw: smooth(draw.normal("B n d")),
    "causal_conv": lambda draw: exact(draw.grid("B n d"), draw.grid("3 d")),
    "coding_rate": lambda draw: smooth(draw.normal("B H n h"), draw.uniform("B H n", 0, 1)),
    "coding_rate_bound": lambda draw: smooth(
        draw.normal("B H n h"), draw.uniform("B H n", 0, 1)
    ),
    "both_ways_product": lambda draw: smooth(
        *draw.qkv(draw.normal), draw.uniform("B H n h", -2, 0)
    ),
    "both_ways_sum": lambda draw: smooth(draw.normal("B n d"), draw.uniform("B n d", -2, 0)),
    "slot_product": lambda draw: smooth(
        *draw.qkv(draw.normal), draw.uniform("B H n o", -2, 0), draw.normal("B H h o")
    ),
    "log_linear_product": lambda draw: smooth(
        *draw.qkv(draw.normal), draw.uniform("B H n 1", -2, 0), draw.uniform("B H n 13", 0, 1),
        wrap=stateless,
    ),
    "mlstm": lambda draw: smooth(
        *draw.qkv(draw.normal), draw.uniform("B H n 1", -2, 0), draw.normal("B H n 1"),
        wrap=stateless,
    ),
    "wkv": lambda draw: smooth(
        draw.normal("B n d"), draw.uniform("B n d", -1, 1), draw.uniform("d", -2, -0.1),
        draw.normal("d"),
        wrap=stateless,
    ),
    "selective_scan": lambda draw: smooth(
        draw.normal("B n d"), draw.uniform("B n d", 0.1, 1), draw.uniform("d h", -2, -0.1),
        draw.normal("B n h"), draw.normal("B n h"), draw.normal("B d h"),
    ),
    "cumsum_tokens": lambda draw: exact(draw.grid("B n d"), draw.mask()),
    "running_sum": lambda draw: exact(draw.grid("B n d"), draw.grid("B d")),
    "decayed_sum": lambda draw: smooth(
        draw.normal("B n d"), draw.uniform("B n d", -2, 0), draw.normal("B d")
    ),
    "softmax_pool": lambda draw: smooth(draw.normal("B n d"), draw.normal("B n d"), draw.mask()),
    "running_softmax_pool": lambda draw: smooth(
        draw.normal("B n d"), draw.normal("B n d"), draw.mask(), wrap=stateless
    ),
}  # fmt: skip


def check(name, seed=0):
    """(Verdict, bytes that `back` keeps) of the textbook form of `name` at its example."""
    is_exact, wrap, arguments = EXAMPLES[name](Draw(seed))
    op = getattr(ops, name)
    op = wrap(getattr(op, "plain", op))
    verdict = gradcheck(op, *arguments, exact=is_exact, seed=seed)
    verdict.op = name
    return verdict, sum(array.nbytes for array in saved_arrays(op(*arguments)[1]))


def gains(name):
    """[(module of a faster form, what it gains)], measured for NumPy's arrays."""
    on_host, on_device = FORMS.get(name, ([], []))
    op = getattr(ops, name)
    told = []
    for module, form in zip(on_host, op.forms() if on_host else [], strict=True):
        tried = HEAVY.get(name, (REAL, LONG))
        seconds = next(filter(None, (seconds_of(name, [op.plain, form], s) for s in tried)))
        told.append((module, f"{seconds[0] / seconds[1]:.1f} times as fast here"))
    return told + [(module, "on a GPU") for module in on_device if module not in on_host]


def seconds_of(name, forms, sizes):
    """The least seconds of each form, there and back in float32; None if one does not take it."""
    _, wrap, arguments = EXAMPLES[name](Draw(0, sizes))
    arguments = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in arguments]
    least = [np.inf] * len(forms)
    for _ in range(2):
        for i, form in enumerate(forms):
            start = time.perf_counter()
            try:
                y, back = wrap(form)(*arguments)
            except TypeError:  # NotImplemented is no pair
                return None
            back(tuple(map(np.ones_like, y)) if isinstance(y, tuple) else np.ones_like(y))
            least[i] = min(least[i], time.perf_counter() - start)
    return least


def formula(op):
    """The docstring's first line up to the shapes."""
    return op.__doc__.splitlines()[0].partition("   ")[0].rstrip(".")


def saved(op):
    """What the docstring's last paragraph says after `Saved:`."""
    return " ".join(op.__doc__.rpartition("Saved:")[2].split()).rstrip(".")


def table():
    """Lines to print, and last the verdicts that are false."""
    sizes, real = (", ".join(f"{k} {v:,}" for k, v in s.items()) for s in (SIZES, REAL))
    for text in (
        f"saved, in bytes, and checked at {sizes}, in float64; exact: compared with ==",
        f"faster than the textbook form, there and back, at {real}, in float32",
    ):
        yield textwrap.fill(text, 80, subsequent_indent="  ")
    wrong, module = [], None
    for name in EXAMPLES:
        op = getattr(ops, name)
        if op.__module__ != module:
            module = op.__module__
            yield ""
            path = module.replace(".", "/") + ".py"
            yield textwrap.fill(f"{path}: {sys.modules[module].__doc__.splitlines()[0]}", 80)
        verdict, kept = check(name)
        status = "exact" if "exact" in verdict.mode else f"within {RELATIVE_TOLERANCE:.0e}"
        if not verdict:
            wrong.append(verdict)
            status = "WRONG"
        called = textwrap.shorten(f"{name}{inspect.signature(op)}", 58, placeholder=" ...)")
        yield f"{called:<58} {kept:>6}  {status}"
        about = [formula(op), f"saved: {saved(op)}"]
        about += [f"faster: {module}, {gain}" for module, gain in gains(name)]
        for text in about:
            yield textwrap.fill(text, 80, initial_indent="    ", subsequent_indent="      ")
    yield wrong


def page(name):
    """Lines about one operation."""
    op = getattr(ops, name)
    yield f"{name}{inspect.signature(op)}"
    yield textwrap.indent(inspect.getdoc(op), "    ")
    yield ""
    yield f"textbook form: {op.__module__.replace('.', '/')}.py"
    for module, gain in gains(name):
        yield f"faster form:   minisum/fast/{module.replace('.', '/')}.py, {gain}"


def main(arguments=None):
    """Print the table or a page; the exit status is 1 if a gradient is wrong."""
    about = (__doc__ or "").partition("\n\n")[2]
    parser = argparse.ArgumentParser("python -m minisum.ops", description=about)
    if __doc__ is None:
        parser.error("Python's -OO leaves out the docstrings that the table is made of")
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this operation alone")
    name = parser.parse_args(arguments).name
    if name is not None and name not in EXAMPLES:
        hint = did_you_mean(name, EXAMPLES) or ": python -m minisum.ops lists them all"
        parser.error(f"no operation is called {name!r}{hint}")
    sys.stdout.reconfigure(errors="backslashreplace")
    wrong = []
    try:
        for line in page(name) if name else table():
            if isinstance(line, list):
                wrong = line
            else:
                print(line, flush=True)
        print(*wrong, sep="\n", end="\n" if wrong else "", flush=True)
    except OSError as error:  # nothing is left to be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # as in `| head`
            parser.error(f"cannot write: {error.strerror}")
    return 1 if wrong else 0
