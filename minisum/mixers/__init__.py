"""Token mixers: one paper a file, one signature.

    mixer = mixers.build("attention", width=64, heads=4, max_len=512, causal=False)
    params = mixer.init(rng)                   # dict of named host arrays
    y, back = mixer(params, x, mask)           # x, y (B, n, d); mask (B, n) bool or None
    dx, dparams = back(dy)
    y, state = mixer.step(params, x, state)    # causal: any number of tokens, any split

`TABLE` is the one place that knows the names. A mixer's `can_be_causal` and
`can_be_bidirectional` say which forms it has. How to add one: README.md beside this file.
"""

from minisum.errors import UserError
from minisum.mixers.aft_simple import AFTSimple
from minisum.mixers.attention import Attention
from minisum.mixers.cosformer import CosFormer
from minisum.mixers.decayed_sum import DecayedSum
from minisum.mixers.deltanet import DeltaNet
from minisum.mixers.gated_deltanet import GatedDeltaNet
from minisum.mixers.gated_sum import GatedSum
from minisum.mixers.gla import GatedLinearAttention
from minisum.mixers.linear_attention import LinearAttention
from minisum.mixers.projection import Projection
from minisum.mixers.retnet import RetNet
from minisum.mixers.running_mean import RunningMean
from minisum.mixers.simpletron import SimpleTron
from minisum.mixers.summation import Summation
from minisum.mixers.tssa import TSSA

TABLE = {
    "summation": Summation,
    "running_mean": RunningMean,
    "decayed_sum": DecayedSum,
    "gated_sum": GatedSum,
    "aft_simple": AFTSimple,
    "projection": Projection,
    "attention": Attention,
    "tssa": TSSA,
    "simpletron": SimpleTron,
    "linear_attention": LinearAttention,
    "cosformer": CosFormer,
    "retnet": RetNet,
    "gla": GatedLinearAttention,
    "deltanet": DeltaNet,
    "gated_deltanet": GatedDeltaNet,
}


def build(name, width, heads=1, max_len=512, causal=False, **options):
    """The mixer called `name`. Raises UserError for what it does not know or cannot do."""
    if name not in TABLE:
        raise UserError(f"unknown mixer {name!r}: choose one of {', '.join(sorted(TABLE))}")
    return TABLE[name](width=width, heads=heads, max_len=max_len, causal=causal, **options)
