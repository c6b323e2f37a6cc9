"""Mamba-2: Dao and Gu 2024, "Transformers are SSMs: generalized models and efficient algorithms
through structured state space duality" (SSD), in the layer of the released Mamba2 with one group.

Linear attention with a decay that each token sets for each head. Keys and queries, the B and C of a
state space model, are shared by all heads; keys, queries and values pass a short convolution. Time
O(n (C + N) d) beside the linear maps, with chunks of C tokens and keys of width N; memory O(n d);
state expand d N, plus the convolution's (conv - 1) (expand d + 2N).
"""

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.errors import UserError
from minisum.layers import linear_layer
from minisum.mixers.base import Packed, normed_layer
from minisum.ops import causal_conv, causal_product, merge_heads, silu, softplus, split_heads


class Mamba2(Packed):
    """y = RMSNorm(o ⊙ SiLU(z)) @ Wo.T, o_t = S_t.T @ C_t + D u_t in each head; causal only.

    S_t = e^{Δ_t A} S_{t-1} + B_t.T @ (Δ_t u_t), S (N, P). [z, u, B, C, δ] = x @ Win.T, of widths
    e = expand d, e, N, N and H; u, B and C then pass one convolution over `conv` tokens with bias,
    and SiLU. One number per head: Δ = softplus(δ + dt_bias), A = -exp(A_log), D. Heads have P = e/H
    channels; the norm runs over all e. No other biases. Initial values: exp(A_log) ~ U(1, 16),
    softplus(dt_bias) log-uniform in [0.001, 0.1], D = 1.

    Backward, upwards: the norm; o ⊙ SiLU(z) by the product rule; `ops.causal_product` with queries
    C, keys B, values Δ u and log_decay Δ A, whose dB and dC sum over the heads; Δ gets the values'
    part Σ_P dv ⊙ u and the decay's A dlog; dA_log = Σ dlog ⊙ Δ A; dD = Σ do ⊙ u; the convolution.
    """

    can_be_bidirectional = False

    def __init__(
        self, width, heads=1, max_len=512, causal=False, expand=2, state_width=128, conv=4
    ):
        super().__init__(width, heads, max_len, causal)
        self.inner, self.state_width, self.conv = expand * width, state_width, conv
        if conv < 1:
            raise UserError(f"mamba2: a convolution over a number of tokens from 1 on, not {conv}")

    def init(self, rng):
        d, e, N, H = self.width, self.inner, self.state_width, self.heads
        return {
            "in": init.linear(rng, 2 * e + 2 * N + H, d, bias=False),
            "conv": first_convolution(rng, self.conv, e + 2 * N),
            "dt_bias": init.step_bias(rng, H),
            "A_log": np.log(rng.uniform(1, 16, H)),
            "D": np.ones(H),
            "norm": {"gain": np.ones(e)},
            "o": init.linear(rng, d, e, bias=False),
        }

    def mix(self, params, x, mask, state):
        xp, e, N, H = array_module(x), self.inner, self.state_width, self.heads
        S, inputs = (None, None) if state is None else state
        flat, back_in = linear_layer(params["in"], x)
        z, mixed, steps = flat[..., :e], flat[..., e : 2 * e + 2 * N], flat[..., 2 * e + 2 * N :]
        (active, inputs), back_conv = silu_of_convolution(params["conv"], mixed, inputs)
        u, back_u = split_heads(active[..., :e], H)  # (B, H, n, P)
        key, query = active[:, None, :, e : e + N], active[:, None, :, e + N :]  # (B, 1, n, N)
        dt, back_dt = softplus(steps + params["dt_bias"])
        dt = dt.swapaxes(1, 2)[..., None]  # (B, H, n, 1)
        A, D = (a[:, None, None] for a in (-xp.exp(params["A_log"]), params["D"]))
        (o, S), back_memory = self.memory(params, x, (query, key, dt * u, dt * A), S)
        joined, back_join = merge_heads(o + D * u)
        gate, back_gate = silu(z)
        y, back_normed = normed_layer(params, joined * gate)

        def back(dy):
            dgated, dparams_normed = back_normed(dy)
            do = back_join(dgated * gate)
            (dquery, dkey, dv, dlog), dx_memory, dmemory = back_memory(do)
            ddt = (dv * u).sum(axis=-1, keepdims=True) + dlog * A
            du = dt * dv + D * do
            dactive = [back_u(du), dkey[:, 0], dquery[:, 0]]
            dmixed, dconv = back_conv(xp.concatenate(dactive, axis=-1))
            dsteps = back_dt(ddt[..., 0].swapaxes(1, 2))
            dz = back_gate(dgated * joined)
            dx, din = back_in(xp.concatenate([dz, dmixed, dsteps], axis=-1))
            return dx + dx_memory, dmemory | dparams_normed | {
                "in": din,
                "conv": dconv,
                "dt_bias": dsteps.sum(axis=(0, 1)),
                "A_log": (dlog * dt * A).sum(axis=(0, 2, 3)),
                "D": (do * u).sum(axis=(0, 2, 3)),
            }

        return (y, (S, inputs)), back

    def memory(self, params, x, product, state):
        """o, state of (query, key, value, log decay); back(do) -> their gradients, dx, dparams."""
        o_and_state, back_product = causal_product(*product, state)
        return o_and_state, lambda do: (back_product((do, None))[:4], 0, {})

    def state_size(self, tokens=None):
        e, N = self.inner, self.state_width
        return e * N + (self.conv - 1) * (e + 2 * N)


def first_convolution(rng, taps, width):
    """W (taps, width) and b (width), uniform within ±1/√taps."""
    limit = taps**-0.5
    return {
        "W": rng.uniform(-limit, limit, (taps, width)),
        "b": rng.uniform(-limit, limit, width),
    }


def silu_of_convolution(params, x, state):
    """SiLU(conv(x) + b), and the convolution's state; back(dy) -> dx, dparams."""
    (mixed, state), back_conv = causal_conv(x, params["W"], state)
    y, back_silu = silu(mixed + params["b"])

    def back(dy):
        dmixed = back_silu(dy)
        dx, dW, _ = back_conv((dmixed, None))
        return dx, {"W": dW, "b": dmixed.sum(axis=(0, 1))}

    return (y, state), back
