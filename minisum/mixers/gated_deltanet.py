"""Gated DeltaNet: Yang, Kautz and Hatamizadeh 2025, "Gated delta networks: improving Mamba2 with
delta rule".

DeltaNet's memory with a gate that can also empty it: forget everything a little, then correct one
entry. Time O(n (C + h) d) with chunks of C tokens, memory O(n d); state expand_v d²/H, plus the
convolutions' (conv - 1) (2 + expand_v) d.
"""

import numpy as np

from minisum.backend import array_module
from minisum.mixers.base import Mixer, from_heads, join, keep_real, normal_linears, to_heads
from minisum.mixers.deltanet import checked_conv, conv_heads, conv_init
from minisum.ops import delta_rule, l2_norm, rms_norm, sigmoid, silu, softplus


class GatedDeltaNet(Mixer):
    """y = Wo (RMSNorm(o) ⊙ SiLU(Wg x)), o = the gated delta rule's reading; causal only.

    S̃_t = a_t S_{t-1}, S_t = S̃_t + β_t k_t (v_t - S̃_tᵀ k_t)ᵀ, o_t = S_tᵀ q_t / √h. q, k, v and β as
    in DeltaNet, v with expand_v d/H a head. log a = -exp(A_log) softplus(Wa x + ba), one a head;
    first exp(A_log) from U(0, 16), softplus(ba) log-uniform in [0.001, 0.1].

    Backward, upwards: the gate's product rule, the norm, `ops.delta_rule`; for the decay, with
    rate = exp(A_log): dA_log = Σ dlog_a ⊙ log_a and dz = -rate dlog_a σ(z).
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
        scale = (self.width // H) ** -0.5
        S, *before = (None,) * 4 if state is None else state
        (q, q_state), back_q = conv_heads(params, x, "q", H, before[0])
        (k, k_state), back_k = conv_heads(params, x, "k", H, before[1])
        (v, v_state), back_v = conv_heads(params, x, "v", H, before[2])
        unit_q, back_unit_q = l2_norm(q)
        unit_k, back_unit_k = l2_norm(k)
        z, back_z = to_heads(params, x, "beta", H)
        beta, back_sigmoid = sigmoid(z)
        time, back_time = to_heads(params, x, "a", H)
        soft, back_soft = softplus(time)
        rate = xp.exp(params["A_log"])[:, None, None]
        log_decay = keep_real(-rate * soft, mask)
        rule = (unit_q * scale, unit_k, v, keep_real(beta, mask), log_decay, S)
        (o, S), back_rule = delta_rule(*rule)
        normed, back_norm = rms_norm(o, params["norm"], 1e-5)
        gate, back_gate = to_heads(params, x, "g", H)
        opened, back_silu = silu(gate)
        y, back_o = from_heads(params, normed * opened)

        def back(dy):
            dgated, dparams_o = back_o(dy)
            do, dnorm = back_norm(dgated * opened)
            dq, dk, dv, dbeta, dlog_decay, _ = back_rule((do, None))
            dlog_decay = keep_real(dlog_decay, mask)
            dA_log = (dlog_decay * log_decay).sum(axis=(0, 2, 3))
            dx, dparams = join(
                back_q(back_unit_q(dq * scale)),
                back_k(back_unit_k(dk)),
                back_v(dv),
                back_z(back_sigmoid(keep_real(dbeta, mask))),
                back_time(back_soft(-rate * dlog_decay)),
                back_gate(back_silu(dgated * normed)),
            )
            return dx, dparams | dparams_o | {"norm": dnorm, "A_log": dA_log}

        return (y, (S, q_state, k_state, v_state)), back

    def state_size(self, tokens=None):
        d, e = self.width, self.value_width
        return d * e // self.heads + max(self.conv - 1, 0) * (2 * d + e)
