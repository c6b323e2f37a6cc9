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
    "decayed_sum": Entry("decayed_sum", "DecayedSum", can_be_bidirectional=False),
    "gated_sum": Entry("gated_sum", "GatedSum", can_be_bidirectional=False),
    "aft_simple": Entry("aft_simple", "AFTSimple"),
    "projection": Entry("projection", "Projection"),
    "attention": Entry("attention", "Attention"),
    "tssa": Entry("tssa", "TSSA"),
    "simpletron": Entry("simpletron", "SimpleTron"),
    "linear_attention": Entry("linear_attention", "LinearAttention"),
    "cosformer": Entry("cosformer", "CosFormer"),
    "retnet": Entry("retnet", "RetNet", can_be_bidirectional=False),
    "gla": Entry("gla", "GatedLinearAttention", can_be_bidirectional=False),
    "deltanet": Entry("deltanet", "DeltaNet", can_be_bidirectional=False),
    "gated_deltanet": Entry("gated_deltanet", "GatedDeltaNet", can_be_bidirectional=False),
}


def build(name, width, heads=1, max_len=512, causal=False, **options):
    """The mixer called `name`. Raises UserError for what it does not know or cannot do."""
    if name not in TABLE:
        raise UserError(f"unknown mixer {name!r}: choose one of {', '.join(sorted(TABLE))}")
    mixer = TABLE[name].load()
    return mixer(width=width, heads=heads, max_len=max_len, causal=causal, **options)
