"""Gated DeltaProduct: Siems et al. 2025, "DeltaProduct: Improving state-tracking in linear RNNs via
Householder products".

Gated DeltaNet with several corrections per token. One reflects or scales along a key; two can
rotate, n - 1 can permute n elements. Time O(steps n (C + h) d) with chunks of C steps,
memory O(steps n d); state expand_v d²/H, plus the convolutions'
(conv - 1) (1 + steps + steps expand_v) d.
"""

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.errors import UserError
from minisum.mixers.base import Mixer, from_heads, gated_from_heads, normed_layer
from minisum.mixers.deltanet import (
    add_convolutions,
    checked_beta,
    checked_conv,
    queries_keys_values,
)
from minisum.mixers.gated_deltanet import gate_decays
from minisum.ops import delta_rule


class DeltaProduct(Mixer):
    """y = (RMSNorm(o) ⊙ SiLU(x @ Wgate.T)) @ Wo.T, o_t = q_t @ S_t / √h; causal only.

    S = a_t S_{t-1}, then for each of the token's steps S ← S + β k.T @ (v - k @ S), with k, v and β
    of the step's own; S_t is the last. The rest as in GatedDeltaNet, but β = beta_max σ(..) with
    beta_max=2. decay=False: a = 1. gate=False: no SiLU factor. One step with neither is DeltaNet.

    Computed as the delta rule over steps · n tokens: a token's decay is applied at its first step,
    its query at its last. The layers k, v and beta hold one step after the other.

    As in fla's layer, which also allows more value heads than key heads, and keeps the SiLU of q, k
    and v where there is no convolution.

    Backward, upwards: the gate's product rule, the norm, `ops.delta_rule`, and `log_decays`.
    """

    can_be_bidirectional = False

    def __init__(
        self, width, heads=1, max_len=512, causal=False, conv=4, expand_v=2, beta_max=2.0, steps=2,
        decay=True, gate=True,
    ):  # fmt: skip
        super().__init__(width, heads, max_len, causal)
        if steps < 1:
            raise UserError(f"steps is a number of corrections a token, from 1 on, not {steps}")
        self.conv, self.value_width = checked_conv(conv), expand_v * width
        self.beta_max, self.steps = checked_beta(beta_max), steps
        self.decay, self.gate = decay, gate

    def init(self, rng):
        d, e, H, m = self.width, self.value_width, self.heads, self.steps
        sizes = {"q": (d, d), "k": (m * d, d), "v": (m * e, d), "beta": (m * H, d)}
        sizes |= {"decay": (H, d)} if self.decay else {}
        sizes |= {"gate": (e, d)} if self.gate else {}
        sizes |= {"o": (d, e)}
        layers = {k: init.linear(rng, *size, "normal", bias=False) for k, size in sizes.items()}
        add_convolutions(rng, layers, self.conv)
        if self.decay:
            layers["decay"]["b"] = init.step_bias(rng, H)
            layers["A_log"] = np.log(rng.uniform(0, 16, H))
        return layers | {"norm": {"gain": np.ones(e // H)}}

    def mix(self, params, x, mask, state):
        H, m = self.heads, self.steps
        S, *convs = (None,) * 4 if state is None else state
        (inputs, convs), back_inputs = queries_keys_values(
            params, x, mask, H, convs, self.beta_max, m
        )
        q, *stepwise = inputs
        log_decay, back_decay = gate_decays(params, x, mask, H) if self.decay else (None, None)
        faded = at_step(log_decay, 0, m) if self.decay else None
        turns = (in_turn(a, m) for a in stepwise)
        (read, S), back_rule = delta_rule(at_step(q, m - 1, m), *turns, faded, S)
        o = of_step(read, m - 1, m)
        if self.gate:
            y, back_y = gated_from_heads(params, o, x, H)
        else:
            y, back_y = normed_layer(params, o, from_heads)

        def back(dy):
            do, *dx_more, dparams_y = back_y(dy)
            dq, *dturns, dfaded, _ = back_rule((at_step(do, m - 1, m), None))
            dstepwise = (step_by_step(a, m) for a in dturns)
            dx, dparams = back_inputs(of_step(dq, m - 1, m), *dstepwise)
            if self.decay:
                dx_decay, dparams_decay = back_decay(of_step(dfaded, 0, m))
                dx_more.append(dx_decay)
                dparams |= dparams_decay
            return sum(dx_more, dx), dparams | dparams_y

        return (y, (S, *convs)), back

    def state_size(self, tokens=None):
        d, e, m = self.width, self.value_width, self.steps
        return d * e // self.heads + max(self.conv - 1, 0) * (d + m * d + m * e)


def at_step(x, step, steps):
    """x (B, H, n, w) at one step of its token, zeros at the others -> (B, H, steps n, w)"""
    B, H, n, w = x.shape
    y = array_module(x).zeros((B, H, n, steps, w), x.dtype)
    y[:, :, :, step] = x
    return y.reshape(B, H, n * steps, w)


def of_step(y, step, steps):
    """The adjoint of `at_step`: (B, H, steps n, w) -> (B, H, n, w)"""
    B, H, m, w = y.shape
    return y.reshape(B, H, m // steps, steps, w)[:, :, :, step]


def in_turn(x, steps):
    """Heads step after step to steps token after token: (B, steps H, n, w) -> (B, H, steps n, w)"""
    B, heads, n, w = x.shape
    x = x.reshape(B, steps, heads // steps, n, w)
    return x.transpose(0, 2, 3, 1, 4).reshape(B, heads // steps, n * steps, w)


def step_by_step(y, steps):
    """The inverse of `in_turn`."""
    B, H, m, w = y.shape
    y = y.reshape(B, H, m // steps, steps, w)
    return y.transpose(0, 3, 1, 2, 4).reshape(B, steps * H, m // steps, w)
