"""Gated linear attention: Yang et al. 2024, "Gated linear attention transformers with
hardware-efficient training", equation 3 and section 4.

Attention without softmax whose memory forgets at rates that each token sets for each key channel.
Time O(n (C + V) K H) with chunks of C tokens, memory O(n d); state H K V, that is expand_k d²/H.
"""

import numpy as np

from minisum.errors import UserError
from minisum.mixers.base import (
    Mixer,
    affine,
    gated_from_heads,
    join,
    keep_real,
    normal_linears,
    to_heads,
)
from minisum.ops import causal_product, softplus

RANK, TEMPERATURE = 16, 16.0


class GatedLinearAttention(Mixer):
    """y = (RMSNorm(o) ⊙ SiLU(x @ Wr.T)) @ Wo.T, o_t = q_t @ S_t / √K; causal only.

    S_t = a_t.T ⊙ S_{t-1} + k_t.T @ v_t, log_a = logsigmoid(z) / 16, z = x @ W1.T @ W2.T + b2, a map
    of rank 16; q, k = linear maps of x to K = expand_k d/H a head, v to d/H. No feature map, no
    positions; the norm is in each head, with one gain for all of them.

    Backward, upwards: the gate's product rule, the norm, `ops.causal_product`, and for the decay
    log_a = -softplus(-z) / 16: dz = dlog_a ⊙ σ(-z) / 16.
    """

    can_be_bidirectional = False

    def __init__(self, width, heads=1, max_len=512, causal=False, expand_k=0.5):
        super().__init__(width, heads, max_len, causal)
        self.key_width = int(expand_k * width)
        if self.key_width < 1 or self.key_width % heads:
            raise UserError(f"gla: {heads} heads do not divide the keys' width {self.key_width}")

    def init(self, rng):
        d, e = self.width, self.key_width
        sizes = {"q": (e, d), "k": (e, d), "v": (d, d), "r": (d, d), "o": (d, d)}
        sizes |= {"1": (RANK, d), "2": (e, RANK)}
        arrays = normal_linears(rng, sizes)
        return arrays | {"b2": np.zeros(e), "norm": np.ones(d // self.heads)}

    def mix(self, params, x, mask, state):
        H = self.heads
        scale = (self.key_width // H) ** -0.5
        q, back_q = to_heads(params, x, "q", H)
        k, back_k = to_heads(params, x, "k", H)
        v, back_v = to_heads(params, x, "v", H)
        low, back_low = affine(params, x, "1")
        z, back_z = to_heads(params, low, "2", H)
        minus_log, back_log = softplus(-z)
        log_decay = keep_real(minus_log * (-1 / TEMPERATURE), mask)
        (o, state), back_product = causal_product(q * scale, k, v, log_decay, state)
        y, back_gated = gated_from_heads(params, o, x, "r", H)

        def back(dy):
            do, through_gate = back_gated(dy)
            dq, dk, dv, dlog_decay, _ = back_product((do, None))
            dz = back_log(keep_real(dlog_decay, mask)) * (1 / TEMPERATURE)
            dlow, dparams_2 = back_z(dz)
            dx, dparams = join(
                back_q(dq * scale),
                back_k(dk),
                back_v(dv),
                through_gate,
                back_low(dlow),
            )
            return dx, dparams | dparams_2

        return (y, state), back

    def state_size(self, tokens=None):
        return self.key_width * self.width // self.heads
