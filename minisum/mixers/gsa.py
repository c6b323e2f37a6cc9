"""Gated slot attention: Zhang et al. 2024, "Gated slot attention for efficient linear-time sequence
modeling", in the layer of the flash-linear-attention library.

Softmax attention over M slots instead of all tokens. A slot holds a key and a value; every token
moves each of them towards its own by the share 1 - f that the slot forgets. Time O(n (C + M) d)
with chunks of C tokens, memory O(n d); state 2 M d.
"""

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.errors import UserError
from minisum.mixers.base import Mixer, join, keep_real, normed_layer, to_heads
from minisum.ops import causal_product, merge_heads, silu, slot_product, softplus
from minisum.ops.softmax_attention import softmax

TEMPERATURE = 8


class GatedSlotAttention(Mixer):
    """y = RMSNorm(SiLU(o)) @ Wo.T, o_t = softmax(q_t @ K_t) @ V_t over M slots; causal only.

    K_t = K_{t-1} ⊙ f_t + k_t.T @ (1 - f_t) and V_t = f_t.T ⊙ V_{t-1} + (1 - f_t).T @ v_t, K (h, M),
    V (M, h); q, k, v = SiLU of linear maps of x, log f = logsigmoid(x @ Wf.T) / 8. slots: M per
    head, h by default. No biases, no scale; the norm runs over all heads.

    Backward, upwards: the norm; `ops.causal_product`, the softmax, ds = p ⊙ (dp - Σ dp ⊙ p), and
    `ops.slot_product`. From both products the gate gets two parts: its gradient as the decay, and
    -f ⊙ that of 1 - f, which is written.
    """

    can_be_bidirectional = False

    def __init__(self, width, heads=1, max_len=512, causal=False, slots=None):
        super().__init__(width, heads, max_len, causal)
        self.slots = width // heads if slots is None else slots
        if self.slots < 1:
            raise UserError(f"gsa: a number of slots from 1 on, not {slots}")

    def init(self, rng):
        d = self.width
        sizes = {"q": d, "k": d, "v": d, "f": self.heads * self.slots, "o": d}
        layers = {k: init.linear(rng, size, d, "normal", bias=False) for k, size in sizes.items()}
        return layers | {"norm": {"gain": np.ones(d)}}

    def mix(self, params, x, mask, state):
        xp, H = array_module(x), self.heads
        keys, values = (None, None) if state is None else state
        (q, back_q), (k, back_k), (v, back_v) = (active_heads(params[name], x, H) for name in "qkv")
        z, back_z = to_heads(params["f"], x, H)
        minus_log, back_log = softplus(-z)
        log_f = keep_real(minus_log * (-1 / TEMPERATURE), mask)
        new = -xp.expm1(log_f)  # 0 at padding
        (scores, keys), back_scores = slot_product(q, k, new, log_f, keys)
        p = softmax(scores)
        (o, values), back_read = causal_product(p, new, v, log_f, values)
        joined, back_merge = merge_heads(o)
        active, back_silu = silu(joined)
        y, back_normed = normed_layer(params, active)

        def back(dy):
            dactive, dparams_normed = back_normed(dy)
            do = back_merge(back_silu(dactive))
            dp, dnew_values, dv, dlog_values, _ = back_read((do, None))
            dscores = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
            dq, dk, dnew_keys, dlog_keys, _ = back_scores((dscores, None))
            dlog_f = dlog_values + dlog_keys - (1 - new) * (dnew_values + dnew_keys)
            dz = back_log(keep_real(dlog_f, mask)) * (1 / TEMPERATURE)
            dx, dparams = join(q=back_q(dq), k=back_k(dk), v=back_v(dv), f=back_z(dz))
            return dx, dparams | dparams_normed

        return (y, (keys, values)), back

    def state_size(self, tokens=None):
        return 2 * self.slots * self.width


def active_heads(params, x, heads):
    """SiLU of the heads of a linear layer; back(dy) -> dx, dparams."""
    z, back_z = to_heads(params, x, heads)
    y, back_silu = silu(z)
    return y, lambda dy: back_z(back_silu(dy))
