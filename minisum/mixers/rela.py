"""Rectified linear attention: Zhang, Titov and Sennrich 2021, "Sparse attention with linear units"
(ReLA), in the released code's form with a gate.

Attention with relu in place of softmax: many weights are exactly zero, and a norm of the output
replaces the softmax's division by the sum. Time O(n² d), as attention; memory O(n d). State in
generation: all keys and values so far, 2 n d.
"""

import numpy as np

from minisum.layers import linear_layer
from minisum.mixers.attention import Attention
from minisum.ops import merge_heads, rectified_attention, rms_norm, sigmoid


class ReLA(Attention):
    """y = (RMSNorm(o) ⊙ σ(w ⊙ o)) @ Wo.T + bo, o = concat_heads(rectified_attention(q, k, v)).

    q, k, v = linear maps of x with bias. The norm runs over all heads; its gain and w have one
    number per channel, w initially uniform within ±√(3/d), as in the released code (whose maps are
    drawn by Glorot's limit, here as in PyTorch).

    Backward, upwards: the output map, r = RMSNorm(o) ⊙ σ(u) with u = w ⊙ o; o gets the norm's part
    and w ⊙ du, du = dr ⊙ RMSNorm(o) ⊙ σ'(u), and dw = Σ du ⊙ o; then as in Attention, with
    `ops.rectified_attention` for `ops.attention`.
    """

    def __init__(self, width, heads=1, max_len=512, causal=False, draw="uniform"):
        super().__init__(width, heads, max_len, causal, draw=draw)

    def init(self, rng):
        d = self.width
        gate = {"gain": np.ones(d), "gate": rng.uniform(-((3 / d) ** 0.5), (3 / d) ** 0.5, d)}
        return super().init(rng) | {"norm": gate}

    def attend(self, q, k, v, mask):
        return rectified_attention(q, k, v, mask, self.causal)

    def output(self, params, o):
        gain, w = params["norm"]["gain"], params["norm"]["gate"]
        joined, back_merge = merge_heads(o)
        normed, back_norm = rms_norm(joined, gain, 1e-8)
        gate, back_gate = sigmoid(w * joined)
        y, back_o = linear_layer(params["o"], normed * gate)

        def back(dy):
            dread, dparams_o = back_o(dy)
            djoined, dgain = back_norm(dread * gate)
            du = back_gate(dread * normed)
            dnorm = {"gain": dgain, "gate": (du * joined).sum(axis=(0, 1))}
            return back_merge(djoined + w * du), {"norm": dnorm, "o": dparams_o}

        return y, back
