"""Token mixers: one paper a file, one signature.

    mixer = mixers.build("attention", width=64, heads=4, max_len=512, causal=False)
    params = mixer.init(rng)                   # nested dict of host arrays
    y, back = mixer(params, x, mask)           # x, y (B, n, d); mask (B, n) bool or None
    dx, dparams = back(dy)                     # dparams: a dict like params
    y, state = mixer.step(params, x, state)    # causal: any number of tokens, any split

`TABLE` is the one place that knows the names, and imports a mixer when it is first built.
How to add one: README.md beside this file.
"""

from importlib import import_module
from typing import NamedTuple

from minisum.errors import UserError


class Entry(NamedTuple):
    """Where a mixer is, and which forms it has."""

    module: str
    class_name: str
    can_be_causal: bool = True
    can_be_bidirectional: bool = True

    def load(self):
        """The class."""
        return getattr(import_module(f"minisum.mixers.{self.module}"), self.class_name)


TABLE = {
    "summation": Entry("summation", "Summation"),
    "running_mean": Entry("running_mean", "RunningMean"),
    "decayed_sum": Entry("decayed_sum", "DecayedSum"),
    "gated_sum": Entry("gated_sum", "GatedSum"),
    "aft_simple": Entry("aft_simple", "AFTSimple"),
    "projection": Entry("projection", "Projection"),
    "attention": Entry("attention", "Attention"),
    "window": Entry("window", "Window"),
    "tssa": Entry("tssa", "TSSA"),
    "simpletron": Entry("simpletron", "SimpleTron"),
    "linear_attention": Entry("linear_attention", "LinearAttention"),
    "cosformer": Entry("cosformer", "CosFormer"),
    "retnet": Entry("retnet", "RetNet"),
    "mamba": Entry("mamba", "Mamba", can_be_bidirectional=False),
    "mamba2": Entry("mamba2", "Mamba2", can_be_bidirectional=False),
    "gla": Entry("gla", "GatedLinearAttention"),
    "hgrn2": Entry("hgrn2", "HGRN2"),
    "rwkv4": Entry("rwkv4", "RWKV4", can_be_bidirectional=False),
    "cottention": Entry("cottention", "Cottention"),
    "fastformer": Entry("fastformer", "Fastformer", can_be_causal=False),
    "deltanet": Entry("deltanet", "DeltaNet", can_be_bidirectional=False),
    "gated_deltanet": Entry("gated_deltanet", "GatedDeltaNet", can_be_bidirectional=False),
}


def build(name, width, heads=1, max_len=512, causal=False, **options):
    """The mixer called `name`. Raises UserError for what it does not know or cannot do."""
    if name not in TABLE:
        raise UserError(f"unknown mixer {name!r}: choose one of {', '.join(sorted(TABLE))}")
    mixer = TABLE[name].load()
    return mixer(width=width, heads=heads, max_len=max_len, causal=causal, **options)


def parse_pattern(text, causal=True):
    """Names of the layers, first to last: "summation*3,attention" is a list of four.

    Raises UserError for what is no mixer of that form and for a count that is no number from 1 on.
    """
    known = names(causal)
    layers = []
    for part in text.split(","):
        name, star, count = (word.strip() for word in part.partition("*"))
        if name not in known:
            form = "causal" if causal else "bidirectional"
            raise UserError(
                f"layer pattern {text!r}: {name!r} is no {form} mixer; known: {', '.join(known)}"
            )
        if star and not (count.isascii() and count.isdigit() and 1 <= int(count) <= 1024):
            raise UserError(f"layer pattern {text!r}: {count!r} is not a number from 1 to 1024")
        layers += [name] * (int(count) if star else 1)
    return layers


def names(causal=True):
    """The mixers that have a causal (or bidirectional) form, which can stand in a pattern."""
    return sorted(
        name
        for name, mixer in TABLE.items()
        if (mixer.can_be_causal if causal else mixer.can_be_bidirectional)
    )
