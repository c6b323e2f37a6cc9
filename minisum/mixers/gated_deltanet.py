"""Gated DeltaNet: Yang, Kautz and Hatamizadeh 2025, "Gated delta networks: improving Mamba2 with
delta rule".

DeltaNet's memory with a gate that can also empty it: forget everything a little, then correct one
entry. Time O(n (C + h) d) with chunks of C tokens, memory O(n d); state expand_v d²/H, plus the
convolutions' (conv - 1) (2 + expand_v) d.
"""

import numpy as np

from minisum.backend import array_module
from minisum.mixers.base import Mixer, gated_from_heads, join, keep_real, normal_linears, to_heads
from minisum.mixers.deltanet import checked_conv, conv_init, queries_keys_values
from minisum.ops import delta_rule, softplus


class GatedDeltaNet(Mixer):
    """y = (RMSNorm(o) ⊙ SiLU(x @ Wg.T)) @ Wo.T, o = the gated delta rule's reading; causal only.

    S̃_t = a_t S_{t-1}, S_t = S̃_t + β_t k_t.T @ (v_t - k_t @ S̃_t), o_t = q_t @ S_t / √h. q, k, v and
    β as in DeltaNet, v with expand_v d/H a head. One a head: log_a = -exp(A_log) softplus(z),
    z = x @ Wa.T + ba; first exp(A_log) from U(0, 16), softplus(ba) log-uniform in [0.001, 0.1].

    Backward, upwards: the gate's product rule, the norm, `ops.delta_rule`; for the decay, with
    rate = exp(A_log): dA_log = Σ dlog_a ⊙ log_a and dz = -rate dlog_a ⊙ σ(z).
    """

    can_be_bidirectional = False

    def __init__(self, width, heads=1, max_len=512, causal=False, conv=4, expand_v=2):
        super().__init__(width, heads, max_len, causal)
        self.conv, self.value_width = checked_conv(conv), expand_v * width

    def init(self, rng):
        d, e, H = self.width, self.value_width, self.heads
        sizes = {"q": (d, d), "k": (d, d), "v": (e, d), "beta": (H, d), "a": (H, d)}
        sizes |= {"g": (e, d), "o": (d, e)}
        arrays = normal_linears(rng, sizes)
        arrays |= conv_init(rng, self.conv, {"q": d, "k": d, "v": e})
        rate = np.exp(rng.uniform(np.log(1e-3), np.log(0.1), H))
        return arrays | {
            "ba": np.log(np.expm1(rate)),
            "A_log": np.log(rng.uniform(0, 16, H)),
            "norm": np.ones(e // H),
        }

    def mix(self, params, x, mask, state):
        xp = array_module(x)
        H = self.heads
        S, *before = (None,) * 4 if state is None else state
        (said, before), back_said = queries_keys_values(params, x, mask, H, before)
        time, back_time = to_heads(params, x, "a", H)
        soft, back_soft = softplus(time)
        rate = xp.exp(params["A_log"])[:, None, None]
        log_decay = keep_real(-rate * soft, mask)
        (o, S), back_rule = delta_rule(*said, log_decay, S)
        y, back_gated = gated_from_heads(params, o, x, "g", H)

        def back(dy):
            do, through_gate = back_gated(dy)
            *dsaid, dlog_decay, _ = back_rule((do, None))
            dlog_decay = keep_real(dlog_decay, mask)
            dA_log = (dlog_decay * log_decay).sum(axis=(0, 2, 3))
            dx, dparams = join(
                back_said(*dsaid),
                back_time(back_soft(-rate * dlog_decay)),
                through_gate,
            )
            return dx, dparams | {"A_log": dA_log}

        return (y, (S, *before)), back

    def state_size(self, tokens=None):
        d, e = self.width, self.value_width
        return d * e // self.heads + max(self.conv - 1, 0) * (2 * d + e)
