"""Gated linear attention: Yang et al. 2024, "Gated linear attention transformers with
hardware-efficient training", equation 3 and section 4.

Linear attention whose memory decays at rates that each token sets for each key channel. In both
directions: Afzal et al. 2025, "Linear attention for efficient bidirectional sequence
modeling" (LION-S), with a decay for each channel. Time O(n (C + V) K H) with chunks of C tokens,
memory O(n d); state H K V, that is expand_k d²/H.
"""

import numpy as np

from minisum import init
from minisum.errors import UserError
from minisum.layers import linear_layer
from minisum.mixers.base import Mixer, decayed, gated_from_heads, join, keep_real, to_heads
from minisum.ops import softplus

RANK, TEMPERATURE = 16, 16.0


class GatedLinearAttention(Mixer):
    """y = (RMSNorm(o) ⊙ SiLU(x @ Wgate.T)) @ Wo.T, o_t = q_t @ S_t / √K.

    S_t = a_t.T ⊙ S_{t-1} + k_t.T @ v_t if causal, else `ops.both_ways_product`. log_a =
    logsigmoid(z) / 16, z = x @ W1.T @ W2.T + b2, a map of rank 16 (layers decay1 and decay2);
    q, k = linear maps of x to heads of width K = expand_k d/H, v to d/H. No feature map, no
    positions; the norm is in each head, with one gain for all of them.

    Backward, upwards: the gate's product rule, the norm, the product, and for the decay
    log_a = -softplus(-z) / 16: dz = dlog_a ⊙ σ(-z) / 16.
    """

    def __init__(self, width, heads=1, max_len=512, causal=False, expand_k=0.5):
        super().__init__(width, heads, max_len, causal)
        self.key_width = int(expand_k * width)
        if self.key_width < 1 or self.key_width % heads:
            raise UserError(f"gla: {heads} heads do not divide the keys' width {self.key_width}")

    def init(self, rng):
        d, e = self.width, self.key_width
        sizes = {"q": (e, d), "k": (e, d), "v": (d, d), "gate": (d, d), "o": (d, d)}
        sizes |= {"decay1": (RANK, d)}
        layers = {k: init.linear(rng, *size, "normal", bias=False) for k, size in sizes.items()}
        layers["decay2"] = init.linear(rng, e, RANK, "normal")
        return layers | {"norm": {"gain": np.ones(d // self.heads)}}

    def mix(self, params, x, mask, state):
        H = self.heads
        scale = (self.key_width // H) ** -0.5
        q, back_q = to_heads(params["q"], x, H)
        k, back_k = to_heads(params["k"], x, H)
        v, back_v = to_heads(params["v"], x, H)
        low, back_low = linear_layer(params["decay1"], x)
        z, back_z = to_heads(params["decay2"], low, H)
        minus_log, back_log = softplus(-z)
        log_decay = keep_real(minus_log * (-1 / TEMPERATURE), mask)
        product = q * scale, k, v, log_decay
        (o, state), back_product = decayed(self.causal, *product, state=state)
        y, back_gated = gated_from_heads(params, o, x, H)

        def back(dy):
            do, dx_gate, dparams_gated = back_gated(dy)
            dq, dk, dv, dlog_decay, _ = back_product((do, None))
            dz = back_log(keep_real(dlog_decay, mask)) * (1 / TEMPERATURE)
            dlow, ddecay2 = back_z(dz)
            dx, dparams = join(
                q=back_q(dq * scale), k=back_k(dk), v=back_v(dv), decay1=back_low(dlow)
            )
            return dx + dx_gate, dparams | dparams_gated | {"decay2": ddecay2}

        return (y, state), back

    def state_size(self, tokens=None):
        return self.key_width * self.width // self.heads
