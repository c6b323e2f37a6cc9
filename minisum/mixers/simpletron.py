"""SimpleTRON: Yorsh et al. 2021, "SimpleTRON: Eliminating softmax from attention computation".

Attention with the softmax left out: (q @ k.T) @ v = q @ (k.T @ v), taken from the right. No feature
map, no normaliser but a power of the length, no output map. Time O(n d h), memory O(n d);
state H h² + 1.
"""

import math

from minisum import init
from minisum.backend import array_module
from minisum.errors import UserError
from minisum.layers import token_places
from minisum.mixers.base import Mixer, join, keep_real, to_heads
from minisum.ops import causal_product, full_product, merge_heads


class SimpleTron(Mixer):
    """y = concat_heads(q @ (k.T @ v) / √n), n the number of real tokens; q, k, v with bias.

    The paper has no causal form. Here prefix_scale says what takes the place of n at token t:
    "prefix", the t tokens so far, so that token t gets what the paper's layer gives the last token
    of a text that ends there; or "max_len", a constant.

    Trilinear in q, k, v: with S = k.T @ v / √n, dq = dy @ S.T, dS = q.T @ dy, dk = v @ dS.T / √n
    and dv = k @ dS / √n.
    """

    def __init__(self, width, heads=1, max_len=512, causal=False, prefix_scale="prefix"):
        super().__init__(width, heads, max_len, causal)
        if prefix_scale not in ("prefix", "max_len"):
            raise UserError(f"prefix_scale is 'prefix' or 'max_len', not {prefix_scale!r}")
        if not causal and prefix_scale != "prefix":
            raise UserError("prefix_scale is for the causal form: the other divides by √n")
        self.prefix_scale = prefix_scale

    def init(self, rng):
        return {name: init.linear(rng, self.width, self.width) for name in "qkv"}

    def mix(self, params, x, mask, state):
        S, seen = (None, 0) if state is None else state
        q, back_q = to_heads(params["q"], x, self.heads)
        k, back_k = to_heads(params["k"], x, self.heads)
        v, back_v = to_heads(params["v"], x, self.heads)
        product = causal_product if self.causal else full_product
        (o, S), back_product = product(q, keep_real(k, mask), v, state=S)
        scale = self._scale(x, mask, seen)
        y, back_merge = merge_heads(o * scale)

        def back(dy):
            dq, dk, dv, *_ = back_product((back_merge(dy) * scale, None))
            return join(q=back_q(dq), k=back_k(keep_real(dk, mask)), v=back_v(dv))

        return (y, (S, seen + x.shape[1])), back

    def _scale(self, x, mask, seen):
        """1/√n for each token: (B or 1, 1, n or 1, 1)."""
        xp = array_module(x)
        if self.prefix_scale == "max_len":
            return xp.full((1, 1, 1, 1), 1 / math.sqrt(self.max_len), x.dtype)
        count = token_places(x, mask, seen) + 1
        if not self.causal:
            count = count[:, -1:]
        return (1 / xp.sqrt(count)).astype(x.dtype)[:, None, :, None]

    def state_size(self, tokens=None):
        h = self.width // self.heads
        return self.heads * h * h + 1
