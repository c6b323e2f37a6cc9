"""Mamba: Gu and Dao 2023, "Mamba: linear-time sequence modeling with selective state spaces".

Each of `expand` d channels is a linear state space model with N states, whose step size, input and
output maps depend on the token; a gate multiplies its output. Time O(n d (d + N)), memory O(n d)
plus a state for every 16 tokens or more; state expand d (N + conv - 1).
"""

import math

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.errors import UserError
from minisum.layers import linear_layer
from minisum.mixers.base import Packed
from minisum.mixers.mamba2 import first_convolution, silu_of_convolution
from minisum.ops import selective_scan, silu, softplus


class Mamba(Packed):
    """y = ((s + D ⊙ u) ⊙ SiLU(z)) @ Wo.T, s = selective_scan(u, Δ, A, B, C); causal only.

    [v, z] = x @ Win.T, each e = expand d wide; u = SiLU of a causal convolution of v over `conv`
    tokens, with bias; [δ, B, C] = u @ Wselect.T, of widths R = d / 16 rounded up, N and N;
    Δ = softplus(δ @ Wdt.T + bdt); A = -exp(A_log) (e, N). heads has no effect. Initial values:
    A_log = log(1 ... N) in every channel, D = 1, softplus(bdt) log-uniform in [0.001, 0.1]. A_log
    has two axes, so weight decay, if used, applies to it; in the published training it does not.

    Backward, upwards: the gate's product rule; `ops.selective_scan`; dA_log = dA ⊙ A; dΔ through
    softplus and its two maps; u gets a part from the scan, one from D and one from Wselect; the
    convolution.
    """

    can_be_bidirectional = False

    def __init__(self, width, heads=1, max_len=512, causal=False, expand=2, state_width=16, conv=4):
        super().__init__(width, heads, max_len, causal)
        self.inner, self.state_width, self.conv = expand * width, state_width, conv
        self.rank = math.ceil(width / 16)
        if conv < 1:
            raise UserError(f"mamba: a convolution over a number of tokens from 1 on, not {conv}")

    def init(self, rng):
        d, e, N, R = self.width, self.inner, self.state_width, self.rank
        params = {
            "in": init.linear(rng, 2 * e, d, bias=False),
            "conv": first_convolution(rng, self.conv, e),
            "select": init.linear(rng, R + 2 * N, e, bias=False),
            "dt": init.linear(rng, e, R),
            "A_log": np.tile(np.log(np.arange(1, N + 1)), (e, 1)),
            "D": np.ones(e),
            "o": init.linear(rng, d, e, bias=False),
        }
        params["dt"]["b"] = init.step_bias(rng, e)
        return params

    def mix(self, params, x, mask, state):
        xp, e, N, R = array_module(x), self.inner, self.state_width, self.rank
        h, inputs = (None, None) if state is None else state
        flat, back_in = linear_layer(params["in"], x)
        (u, inputs), back_conv = silu_of_convolution(params["conv"], flat[..., :e], inputs)
        gate, back_gate = silu(flat[..., e:])
        chosen, back_select = linear_layer(params["select"], u)
        low, B, C = chosen[..., :R], chosen[..., R : R + N], chosen[..., R + N :]
        steps, back_steps = linear_layer(params["dt"], low)
        dt, back_dt = softplus(steps)
        A = -xp.exp(params["A_log"])
        (s, h), back_scan = selective_scan(u, dt, A, B, C, h)
        read = s + params["D"] * u
        y, back_o = linear_layer(params["o"], read * gate)

        def back(dy):
            dgated, dparams_o = back_o(dy)
            dread = dgated * gate
            du, ddt, dA, dB, dC, _ = back_scan((dread, None))
            dlow, ddt_layer = back_steps(back_dt(ddt))
            du_chosen, dselect = back_select(xp.concatenate([dlow, dB, dC], axis=-1))
            dv, dconv = back_conv(du + params["D"] * dread + du_chosen)
            dz = back_gate(dgated * read)
            dx, din = back_in(xp.concatenate([dv, dz], axis=-1))
            return dx, {
                "in": din,
                "conv": dconv,
                "select": dselect,
                "dt": ddt_layer,
                "A_log": dA * A,
                "D": (dread * u).sum(axis=(0, 1)),
                "o": dparams_o,
            }

        return (y, (h, inputs)), back

    def state_size(self, tokens=None):
        return self.inner * (self.state_width + self.conv - 1)
