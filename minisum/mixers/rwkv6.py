"""RWKV-6: Peng et al. 2024, "Eagle and Finch: RWKV with matrix-valued states and dynamic
recurrence", the time mixing of Finch.

Linear attention with decays that each token sets for each key channel. A token reads the state
before it writes, and its own value with a learned weight, the bonus. Every map reads a blend of the
token and the one before it, in proportions that depend on the token. Time O(n (C + h) d) with
chunks of C tokens, memory O(n d); state d²/H, and d for the last token.
"""

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.layers import linear_layer
from minisum.mixers.base import Packed, from_heads
from minisum.ops import causal_product, layer_norm, linear, silu, split_heads

READERS = ("w", "k", "v", "r", "g")
BLEND_RANK, DECAY_RANK = 32, 64
EPS = 64e-5


class RWKV6(Packed):
    """y = (GroupNorm(o) ⊙ SiLU(g)) @ Wo.T, o_t = r_t @ S_{t-1} + ((r_t ⊙ u)·k_t) v_t; causal only.

    S_t = a_t.T ⊙ S_{t-1} + k_t.T @ v_t in each head; no biases. With Δ_t = x_{t-1} - x_t and z = x
    + Δ ⊙ μ_x, each of w, k, v, r and g reads x + Δ ⊙ (μ + tanh(z @ W1.T) @ W2.T), with a μ, and
    maps of rank 32, of its own: blend (5, d), blend1 of all five, blend2. log a = -exp(λ + tanh(x_w
    @ W1.T) @ W2.T), rank 64: decay, decay1, decay2. The norm is in each head, with a gain and a
    bias per channel, eps 64e-5. Initial values as published for the first layer of a model, except
    the linear maps, which are drawn uniformly. The channel mixing, the second half of the published
    block, is not part of the mixer: a block's token network takes its place.

    Backward, upwards: the gate's product rule, the norm; `ops.causal_product`, with r_t as query of
    token t - 1; the bonus s v with s = (r ⊙ u)·k: ds = dy·v, dr += ds u ⊙ k, dk += ds u ⊙ r; dlog_a
    through the exponential; of each blend, with what it reads b: db goes to x, Σ db ⊙ Δ to μ, db ⊙
    Δ to the map of rank 32, and db ⊙ (μ + m) to Δ, which is the token before less the token.
    """

    can_be_bidirectional = False

    def init(self, rng):
        d, H = self.width, self.heads
        share, place = np.arange(d) / d, np.arange(d) / max(d - 1, 1)
        powers = {"w": 1.0, "k": 1.0, "v": 1.0, "r": 0.5, "g": 0.5}
        layers = {name: init.linear(rng, d, d, bias=False) for name in "kvrgo"}
        bonus = 0.1 * ((np.arange(d) + 1) % 3 - 1)
        return layers | {
            "mu": 1 - share,
            "blend": np.stack([1 - share**power for power in powers.values()]),
            "blend1": {"W": np.zeros((5 * BLEND_RANK, d))},
            "blend2": rng.uniform(-0.01, 0.01, (5, d, BLEND_RANK)),
            "decay": -6 + 5 * place**0.7,
            "decay1": {"W": np.zeros((DECAY_RANK, d))},
            "decay2": {"W": rng.uniform(-0.01, 0.01, (d, DECAY_RANK))},
            "bonus": bonus.reshape(H, -1),
            "norm": {"gain": np.ones(d), "bias": np.zeros(d)},
        }

    def mix(self, params, x, mask, state):
        xp, H = array_module(x), self.heads
        S, before = (None, xp.zeros_like(x[:, :1])) if state is None else state
        delta = xp.concatenate([before, x[:, :-1]], axis=1) - x
        blends, back_blends = self.blends(params, x, delta)
        x_w, *inputs = blends
        (k, back_k), (v, back_v), (r, back_r), (g, back_g) = (
            linear_layer(params[name], z) for name, z in zip(READERS[1:], inputs, strict=True)
        )
        low, back_low = linear_layer(params["decay1"], x_w)
        low = xp.tanh(low)
        raised, back_raised = linear_layer(params["decay2"], low)
        log_decay = -xp.exp(params["decay"] + raised)
        heads = [split_heads(a, H) for a in (r, k, v, log_decay)]
        (o, S), back_memory = late_product(*(a for a, _ in heads), params["bonus"], S)
        normed, back_norm = layer_norm(o, xp.ones_like(o[0, 0, 0]), xp.zeros_like(o[0, 0, 0]), EPS)
        gain, bias = (params["norm"][name].reshape(H, 1, -1) for name in ("gain", "bias"))
        gate, back_gate = silu(g)
        gate_heads, back_gate_heads = split_heads(gate, H)
        affine = gain * normed + bias
        y, back_o = from_heads(params["o"], affine * gate_heads)

        def back(dy):
            dgated, do_layer = back_o(dy)
            daffine = dgated * gate_heads
            dnorm = {
                "gain": (daffine * normed).sum(axis=(0, 2)).reshape(-1),
                "bias": daffine.sum(axis=(0, 2)).reshape(-1),
            }
            *dheads, dbonus = back_memory(back_norm(daffine * gain)[0])
            dr, dk, dv, dlog = (
                back_head(a) for a, (_, back_head) in zip(dheads, heads, strict=True)
            )
            ddecay = dlog * log_decay
            dlow, ddecay2 = back_raised(ddecay)
            dx_w, ddecay1 = back_low(dlow * (1 - low * low))
            dg = back_gate(back_gate_heads(dgated * affine))
            found = [back_k(dk), back_v(dv), back_r(dr), back_g(dg)]
            dx, ddelta, dparams = back_blends([dx_w, *(da for da, _ in found)])
            dx -= ddelta
            dx[:, :-1] += ddelta[:, 1:]
            dparams |= {name: dlayer for name, (_, dlayer) in zip("kvrg", found, strict=True)}
            dparams |= {"decay": ddecay.sum(axis=(0, 1)), "decay1": ddecay1, "decay2": ddecay2}
            return dx, dparams | {"bonus": dbonus, "norm": dnorm, "o": do_layer}

        return (y, (S, x[:, -1:])), back

    def blends(self, params, x, delta):
        """What w, k, v, r and g read; back(their gradients) -> dx, dΔ, dparams."""
        xp, mu = array_module(x), params["mu"]
        low, back_low = linear_layer(params["blend1"], x + delta * mu)
        low = xp.tanh(low)
        parts = [low[..., i * BLEND_RANK : (i + 1) * BLEND_RANK] for i in range(5)]
        raised = [linear(part, W) for part, W in zip(parts, params["blend2"], strict=True)]
        shares = [blend + m for blend, (m, _) in zip(params["blend"], raised, strict=True)]

        def back(dblends):
            dshares = [db * delta for db in dblends]
            found = [back_m(da) for da, (_, back_m) in zip(dshares, raised, strict=True)]
            dlow = xp.concatenate([dpart for dpart, _ in found], axis=-1) * (1 - low * low)
            dz, dblend1 = back_low(dlow)
            ddelta = sum(db * share for db, share in zip(dblends, shares, strict=True)) + dz * mu
            dparams = {
                "mu": (dz * delta).sum(axis=(0, 1)),
                "blend": xp.stack([da.sum(axis=(0, 1)) for da in dshares]),
                "blend1": dblend1,
                "blend2": xp.stack([dW for _, dW in found]),
            }
            return sum(dblends) + dz, ddelta, dparams

        return [x + delta * share for share in shares], back

    def state_size(self, tokens=None):
        return self.width**2 // self.heads + self.width


def late_product(r, k, v, log_decay, bonus, state):
    """y_t = r_t @ S_{t-1} + ((r_t ⊙ u)·k_t) v_t, S as in `ops.causal_product`; u = bonus (H, h).

    r, k, v, log_decay (B, H, n, h) -> y like v and S_n; back(dy) -> dr, dk, dv, dlog_decay, du.
    """
    xp, u = array_module(r), bonus[:, None]
    nothing = xp.zeros_like(r[:, :, :1])
    early = xp.concatenate([r[:, :, 1:], nothing], axis=2)
    (late, last), back_product = causal_product(early, k, v, log_decay, state)
    first = nothing if state is None else r[:, :, :1] @ state
    own = (r * u * k).sum(axis=-1, keepdims=True)
    y = xp.concatenate([first, late[:, :, :-1]], axis=2) + own * v

    def back(dy):
        dlate = xp.concatenate([dy[:, :, 1:], nothing], axis=2)
        dearly, dk, dv, dlog_decay, _ = back_product((dlate, None))
        dfirst = nothing if state is None else dy[:, :, :1] @ state.swapaxes(-1, -2)
        down = (dy * v).sum(axis=-1, keepdims=True)
        dr = xp.concatenate([dfirst, dearly[:, :, :-1]], axis=2) + down * u * k
        du = (down * r * k).sum(axis=(0, 2))
        return dr, dk + down * u * r, dv + own * dy, dlog_decay, du

    return (y, last), back
