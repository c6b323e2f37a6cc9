"""Multi-head softmax attention: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.

Each head compares a query of one token with the keys of all tokens and averages their values by
the softmax of the comparisons. Time O(n² d); memory O(n² H), or O(n) from `BLOCKED_FROM` tokens on,
where the blocked form takes over. State while generating: all keys and values so far, 2 n d.
"""

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.mixers.base import Mixer
from minisum.ops import attention, attention_blocked, linear, merge_heads, split_heads

BLOCKED_FROM = 1024


class Attention(Mixer):
    """y = concat_heads(attention(q, k, v)) Woᵀ + bo, with q = x Wqᵀ + bq, and k, v alike.

    head_width: the width of one head, d/H by default. (The summation papers' classifier gives
    each head the model's whole width.)
    """

    def __init__(self, width, heads=1, max_len=512, causal=False, head_width=None):
        super().__init__(width, 1 if head_width else heads, max_len, causal)
        self.heads = heads
        self.inner = heads * (head_width or width // heads)

    def init(self, rng):
        d, inner = self.width, self.inner
        arrays = {}
        for name in "qkv":
            arrays[f"W{name}"] = init.glorot_uniform(rng, inner, d)
            arrays[f"b{name}"] = np.zeros(inner)
        return arrays | {"Wo": init.glorot_uniform(rng, d, inner), "bo": np.zeros(d)}

    def __call__(self, params, x, mask=None):
        xp = array_module(x)
        if mask is not None:
            x = xp.where(mask[:, :, None], x, 0)
        q, back_q = self._project(params, x, "q")
        k, back_k = self._project(params, x, "k")
        v, back_v = self._project(params, x, "v")
        attend = attention_blocked if x.shape[1] >= BLOCKED_FROM else attention
        heads_out, back_attend = attend(q, k, v, mask, self.causal)
        joined, back_merge = merge_heads(heads_out)
        y, back_out = linear(joined, params["Wo"], params["bo"])

        def back(dy):
            d_joined, dWo, dbo = back_out(dy)
            dq, dk, dv, _ = back_attend(back_merge(d_joined))
            dparams = {"Wo": dWo, "bo": dbo}
            dx = 0
            for name, d_head, back_head in (("q", dq, back_q), ("k", dk, back_k), ("v", dv, back_v)):
                d_input, dparams[f"W{name}"], dparams[f"b{name}"] = back_head(d_head)
                dx = dx + d_input
            if mask is not None:
                dx = xp.where(mask[:, :, None], dx, 0)
            return dx, dparams

        return y, back

    def step(self, params, x, state=None):
        """Read the next tokens x (B, n, d); the state is the keys and values of all before them."""
        q, k, v = (self._project(params, x, name)[0] for name in "qkv")
        if state is not None:
            xp = array_module(x)
            k, v = (xp.concatenate(pair, axis=2) for pair in zip(state, (k, v), strict=True))
        heads_out, _ = attention(q, k, v, causal=True)
        y, _ = linear(merge_heads(heads_out)[0], params["Wo"], params["bo"])
        return y, (k, v)

    def _project(self, params, x, name):
        """x -> the heads of q, k or v; back gives dx, dW, db."""
        flat, back_linear = linear(x, params[f"W{name}"], params[f"b{name}"])
        split, back_split = split_heads(flat, self.heads)
        return split, lambda d_split: back_linear(back_split(d_split))
