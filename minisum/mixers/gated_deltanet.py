"""Gated DeltaNet: Yang, Kautz and Hatamizadeh 2025, "Gated delta networks: improving Mamba2 with
delta rule".

DeltaNet with a decay: the whole memory is multiplied by a gate, then one entry is corrected. Time
O(n (C + h) d) with chunks of C tokens, memory O(n d); state expand_v d²/H, plus the
convolutions' (conv - 1) (2 + expand_v) d.
"""

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.mixers.base import Mixer, gated_from_heads, keep_real, to_heads
from minisum.mixers.deltanet import (
    add_convolutions,
    checked_beta,
    checked_conv,
    queries_keys_values,
)
from minisum.ops import delta_rule, softplus


class GatedDeltaNet(Mixer):
    """y = (RMSNorm(o) ⊙ SiLU(x @ Wgate.T)) @ Wo.T, o by the gated delta rule; causal only.

    S̃_t = a_t S_{t-1}, S_t = S̃_t + β_t k_t.T @ (v_t - k_t @ S̃_t), o_t = q_t @ S_t / √h. q, k, v and
    β as in DeltaNet, v of width expand_v d/H. One per head: log_a = -exp(A_log) softplus(z),
    z = x @ Wdecay.T + b; initially exp(A_log) ~ U(0, 16), softplus(b) log-uniform in [0.001, 0.1].
    As in fla's layer, where the values may also have more heads than the keys.

    Backward, upwards: the gate's product rule, the norm, `ops.delta_rule`, and `log_decays`.
    """

    can_be_bidirectional = False

    def __init__(self, width, heads=1, max_len=512, causal=False, conv=4, expand_v=2, beta_max=1.0):
        super().__init__(width, heads, max_len, causal)
        self.conv, self.value_width = checked_conv(conv), expand_v * width
        self.beta_max = checked_beta(beta_max)

    def init(self, rng):
        d, e, H = self.width, self.value_width, self.heads
        sizes = {"q": (d, d), "k": (d, d), "v": (e, d), "beta": (H, d), "decay": (H, d)}
        sizes |= {"gate": (e, d), "o": (d, e)}
        layers = {k: init.linear(rng, *size, "normal", bias=False) for k, size in sizes.items()}
        add_convolutions(rng, layers, self.conv)
        layers["decay"]["b"] = init.step_bias(rng, H)
        A_log = np.log(rng.uniform(0, 16, H))
        return layers | {"A_log": A_log, "norm": {"gain": np.ones(e // H)}}

    def mix(self, params, x, mask, state):
        H = self.heads
        S, *convs = (None,) * 4 if state is None else state
        (inputs, convs), back_inputs = queries_keys_values(params, x, mask, H, convs, self.beta_max)
        log_decay, back_decay = gate_decays(params, x, mask, H)
        (o, S), back_rule = delta_rule(*inputs, log_decay, S)
        y, back_gated = gated_from_heads(params, o, x, H)

        def back(dy):
            do, dx_gate, dparams_gated = back_gated(dy)
            *dinputs, dlog_decay, _ = back_rule((do, None))
            dx, dparams = back_inputs(*dinputs)
            dx_decay, dparams_decay = back_decay(dlog_decay)
            return dx + dx_decay + dx_gate, dparams | dparams_decay | dparams_gated

        return (y, (S, *convs)), back

    def state_size(self, tokens=None):
        d, e = self.width, self.value_width
        return d * e // self.heads + max(self.conv - 1, 0) * (2 * d + e)


def log_decays(A_log, z, mask):
    """log_a = -A softplus(z) with A = exp(A_log), 0 at padding.   A_log (H,), z (B, H, n, K or 1)

    back(dlog_a) -> dA_log = Σ dlog_a ⊙ log_a over all but H, dz = -A dlog_a ⊙ σ(z).
    """
    A = array_module(z).exp(A_log)[:, None, None]
    soft, back_soft = softplus(z)
    log_a = keep_real(-A * soft, mask)

    def back(dlog_a):
        dlog_a = keep_real(dlog_a, mask)
        return (dlog_a * log_a).sum(axis=(0, 2, 3)), back_soft(-A * dlog_a)

    return log_a, back


def gate_decays(params, x, mask, heads):
    """log_a (B, H, n, 1) of the layers decay and A_log; back(dlog_a) -> dx, dparams."""
    z, back_z = to_heads(params["decay"], x, heads)
    log_a, back_log = log_decays(params["A_log"], z, mask)

    def back(dlog_a):
        dA_log, dz = back_log(dlog_a)
        dx, dlayer = back_z(dz)
        return dx, {"decay": dlayer, "A_log": dA_log}

    return log_a, back
