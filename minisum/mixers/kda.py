"""Kimi Delta Attention: Kimi Team 2025, "Kimi Linear: An expressive, efficient attention
architecture".

Gated DeltaNet whose memory decays at rates that each token sets for each key channel. Time
O(n (C + h) d) with chunks of C tokens, memory O(n d); state expand_v d²/H, plus the convolutions'
(conv - 1) (2 + expand_v) d.
"""

import numpy as np

from minisum import init
from minisum.layers import linear_layer
from minisum.mixers.base import Mixer, from_heads, to_heads
from minisum.mixers.deltanet import (
    add_convolutions,
    checked_beta,
    checked_conv,
    queries_keys_values,
)
from minisum.mixers.gated_deltanet import log_decays
from minisum.ops import delta_rule, rms_norm, sigmoid


class KimiDeltaAttention(Mixer):
    """y = (RMSNorm(o) ⊙ σ(gate)) @ Wo.T, o by the delta rule; causal only.

    S̃_t = a_t.T ⊙ S_{t-1}, S_t = S̃_t + β_t k_t.T @ (v_t - k_t @ S̃_t), o_t = q_t @ S_t / √h. q, k, v
    and β as in DeltaNet, v of width V = expand_v d/H. For each key channel
    log_a = -exp(A_log) softplus(z), z = x @ W1.T @ W2.T + b (layers decay1, decay2), A_log one per
    head; gate = x @ W1.T @ W2.T + b (gate1, gate2); both maps of rank V. Initially exp(A_log) ~
    U(1, 16), softplus of the decays' b log-uniform in [0.001, 0.1].

    As in fla's layer, which also allows more value heads than key heads and a lower bound of the
    decay, and keeps the SiLU of q, k and v where there is no convolution.

    Backward, upwards: the gate's product rule, the norm, `ops.delta_rule`, and `log_decays`.
    """

    can_be_bidirectional = False

    def __init__(self, width, heads=1, max_len=512, causal=False, conv=4, expand_v=1, beta_max=1.0):
        super().__init__(width, heads, max_len, causal)
        self.conv, self.value_width = checked_conv(conv), expand_v * width
        self.beta_max = checked_beta(beta_max)

    def init(self, rng):
        d, e, H = self.width, self.value_width, self.heads
        sizes = {"q": (d, d), "k": (d, d), "v": (e, d), "beta": (H, d), "o": (d, e)}
        sizes |= {"decay1": (e // H, d), "decay2": (d, e // H), "gate1": (e // H, d)}
        layers = {k: init.linear(rng, *size, "normal", bias=False) for k, size in sizes.items()}
        layers["gate2"] = init.linear(rng, e, e // H, "normal")
        add_convolutions(rng, layers, self.conv)
        layers["decay2"]["b"] = init.step_bias(rng, d)
        A_log = np.log(rng.uniform(1, 16, H))
        return layers | {"A_log": A_log, "norm": {"gain": np.ones(e // H)}}

    def mix(self, params, x, mask, state):
        H = self.heads
        S, *convs = (None,) * 4 if state is None else state
        (inputs, convs), back_inputs = queries_keys_values(params, x, mask, H, convs, self.beta_max)
        z, back_z = low_rank(params, "decay", x, H)
        log_decay, back_decay = log_decays(params["A_log"], z, mask)
        (o, S), back_rule = delta_rule(*inputs, log_decay, S)
        normed, back_norm = rms_norm(o, params["norm"]["gain"], 1e-5)
        z, back_gate = low_rank(params, "gate", x, H)
        gate, back_sigmoid = sigmoid(z)
        y, back_o = from_heads(params["o"], normed * gate)

        def back(dy):
            dgated, dparams_o = back_o(dy)
            do, dgain = back_norm(dgated * gate)
            *dinputs, dlog_decay, _ = back_rule((do, None))
            dA_log, dz = back_decay(dlog_decay)
            dx, dparams = back_inputs(*dinputs)
            dx_decay, dparams_decay = back_z(dz)
            dx_gate, dparams_gate = back_gate(back_sigmoid(dgated * normed))
            dparams |= dparams_decay | dparams_gate
            dparams |= {"A_log": dA_log, "norm": {"gain": dgain}, "o": dparams_o}
            return dx + dx_decay + dx_gate, dparams

        return (y, (S, *convs)), back

    def state_size(self, tokens=None):
        d, e = self.width, self.value_width
        return d * e // self.heads + max(self.conv - 1, 0) * (2 * d + e)


def low_rank(params, name, x, heads):
    """Heads of two linear layers in a row, called name1 and name2; back(dz) -> dx, dparams."""
    low, back_low = linear_layer(params[f"{name}1"], x)
    z, back_z = to_heads(params[f"{name}2"], low, heads)

    def back(dz):
        dlow, dsecond = back_z(dz)
        dx, dfirst = back_low(dlow)
        return dx, {f"{name}1": dfirst, f"{name}2": dsecond}

    return z, back
