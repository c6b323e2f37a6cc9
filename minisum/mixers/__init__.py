"""Token mixers: one paper a file, one signature.

    mixer = mixers.build("attention", width=64, heads=4, max_len=512, causal=False)
    params = mixer.init(rng)                   # dict of named host arrays
    y, back = mixer(params, x, mask)           # x (B, n, d) -> y (B, n, d); mask (B, n) bool or None
    dx, dparams = back(dy)
    y, state = mixer.step(params, x, state)    # causal: any number of tokens, any split

`TABLE` is the one place that knows the names.
"""

from minisum.errors import UserError
from minisum.mixers.attention import Attention

TABLE = {"attention": Attention}


def build(name, width, heads=1, max_len=512, causal=False, **options):
    """The mixer called `name`. Raises UserError for what it does not know or cannot do."""
    if name not in TABLE:
        raise UserError(f"unknown mixer {name!r}: choose one of {', '.join(sorted(TABLE))}")
    return TABLE[name](width=width, heads=heads, max_len=max_len, causal=causal, **options)
