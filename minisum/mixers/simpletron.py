"""SimpleTRON: Yorsh et al. 2021, "SimpleTRON: Eliminating softmax from attention computation".

Attention without softmax: (q @ k.T) @ v = q @ (k.T @ v), computed from the right. No feature map,
no normaliser but a power of the length and, as published, no output map. Time O(n d h), memory
O(n d); state H h² + 1.
"""

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.errors import UserError
from minisum.layers import linear_layer, token_places
from minisum.mixers.base import Mixer, join, keep_real, to_heads
from minisum.ops import causal_product, full_product, merge_heads

# scale -> the powers of the tokens n and of the head's width h that a product is divided by.
SCALES = {"root": (0.5, 0), "root_width": (0.5, 0.5), "mean": (1, 0), "learned": (0.5, 0)}


class SimpleTron(Mixer):
    """y = concat_heads(q @ (k.T @ v) / √n), n the number of real tokens; q, k, v with bias.

    scale: "root" is 1/√n as published, "root_width" 1/√(n h), "mean" 1/n, and "learned" 1/√n times
    a learned number per head, initially 1. output: whether a linear map of y follows, as in
    attention.

    The paper has no causal form. Here prefix_scale sets n at token t: "prefix", the t tokens so
    far, so that token t gets the output that the paper's layer gives the last token of a text
    ending there; or "max_len", a constant.

    Trilinear in q, k, v: with S = k.T @ v / √n, dq = dy @ S.T, dS = q.T @ dy, dk = v @ dS.T / √n
    and dv = k @ dS / √n.
    """

    def __init__(
        self, width, heads=1, max_len=512, causal=False, prefix_scale="prefix", scale="root",
        output=False,
    ):  # fmt: skip
        super().__init__(width, heads, max_len, causal)
        if scale not in SCALES:
            raise UserError(f"scale {scale!r}: choose one of {', '.join(SCALES)}")
        if prefix_scale not in ("prefix", "max_len"):
            raise UserError(f"prefix_scale is 'prefix' or 'max_len', not {prefix_scale!r}")
        if not causal and prefix_scale != "prefix":
            raise UserError("prefix_scale is for the causal form: the other divides by √n")
        self.prefix_scale, self.scale, self.output = prefix_scale, scale, output

    def init(self, rng):
        names = "qkvo" if self.output else "qkv"
        layers = {name: init.linear(rng, self.width, self.width) for name in names}
        return layers | ({"scale": np.ones(self.heads)} if self.scale == "learned" else {})

    def mix(self, params, x, mask, state):
        S, seen = (None, 0) if state is None else state
        q, back_q = to_heads(params["q"], x, self.heads)
        k, back_k = to_heads(params["k"], x, self.heads)
        v, back_v = to_heads(params["v"], x, self.heads)
        product = causal_product if self.causal else full_product
        (o, S), back_product = product(q, keep_real(k, mask), v, state=S)
        fixed = self._scale(x, mask, seen)
        learned = params["scale"][:, None, None] if "scale" in params else 1
        y, back_merge = merge_heads(o * fixed * learned)
        if self.output:
            y, back_o = linear_layer(params["o"], y)

        def back(dy):
            own = {}
            if self.output:
                dy, own["o"] = back_o(dy)
            do = back_merge(dy) * fixed
            if "scale" in params:
                own["scale"] = (do * o).sum(axis=(0, 2, 3))
            dq, dk, dv, *_ = back_product((do * learned, None))
            dx, dparams = join(q=back_q(dq), k=back_k(keep_real(dk, mask)), v=back_v(dv))
            return dx, dparams | own

        return (y, (S, seen + x.shape[1])), back

    def _scale(self, x, mask, seen):
        """What a product is multiplied by at each token: (B or 1, 1, n or 1, 1)."""
        xp, (of_n, of_h) = array_module(x), SCALES[self.scale]
        width = (self.width // self.heads) ** of_h
        if self.prefix_scale == "max_len":
            return xp.full((1, 1, 1, 1), 1 / (self.max_len**of_n * width), x.dtype)
        count = token_places(x, mask, seen) + 1
        if not self.causal:
            count = count[:, -1:]
        return (1 / (count**of_n * width)).astype(x.dtype)[:, None, :, None]

    def state_size(self, tokens=None):
        h = self.width // self.heads
        return self.heads * h * h + 1
