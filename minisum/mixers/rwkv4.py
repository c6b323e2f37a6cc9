"""RWKV-4: Peng et al. 2023, "RWKV: reinventing RNNs for the transformer era", the time mixing.

AFT with weights that decay with distance, one rate per channel, and a separate weight for the
current token; every map reads a blend of the token and the one before it. Time O(n d) beside the
linear maps, memory O(n d); state 4 d: three numbers per channel for the average, and the last
token.
"""

import numpy as np

from minisum.backend import array_module
from minisum.layers import linear_layer
from minisum.mixers.base import Packed, join
from minisum.ops import sigmoid, wkv


class RWKV4(Packed):
    """y = (σ(r) ⊙ wkv(k, v)) @ Wo.T, `ops.wkv` with w = -exp(decay) and u = bonus; causal only.

    r, k, v = linear maps, without bias, of μ ⊙ x_t + (1 - μ) ⊙ x_{t-1}, each with a μ of its own.
    Initial values as published for the first layer of a model: r, k and o zero, v orthogonal,
    decays and μ spread over the channels. The channel mixing, the second half of the published
    block, is not part of the mixer: a block's token network takes its place.

    Backward, upwards: the gate's product rule, `ops.wkv`, ddecay = dw ⊙ w, the maps; with z =
    μ ⊙ x_t + (1 - μ) ⊙ x_{t-1}, dμ = Σ dz ⊙ (x_t - x_{t-1}), x_t gets μ ⊙ dz_t and
    (1 - μ) ⊙ dz_{t+1}.
    """

    can_be_bidirectional = False

    def init(self, rng):
        d = self.width
        place = np.arange(d) / max(d - 1, 1)
        share = np.arange(d) / d
        orthogonal, _ = np.linalg.qr(rng.normal(size=(d, d)))
        return {
            "decay": -5 + 8 * place**0.7,
            "bonus": np.log(0.3) + 0.5 * ((np.arange(d) + 1) % 3 - 1),
            "r": {"mu": share**0.5, "W": np.zeros((d, d))},
            "k": {"mu": share, "W": np.zeros((d, d))},
            "v": {"mu": share, "W": orthogonal},
            "o": {"W": np.zeros((d, d))},
        }

    def mix(self, params, x, mask, state):
        xp = array_module(x)
        average, before = (None, xp.zeros_like(x[:, :1])) if state is None else state
        shifted = xp.concatenate([before, x[:, :-1]], axis=1)
        r, back_r = blended(params["r"], x, shifted)
        k, back_k = blended(params["k"], x, shifted)
        v, back_v = blended(params["v"], x, shifted)
        gate, back_gate = sigmoid(r)
        w = -xp.exp(params["decay"])
        (mean, average), back_wkv = wkv(k, v, w, params["bonus"], average)
        y, back_o = linear_layer(params["o"], gate * mean)

        def back(dy):
            dgated, do = back_o(dy)
            dk, dv, dw, dbonus, _ = back_wkv((dgated * gate, None))
            dr = back_gate(dgated * mean)
            dx, dparams = join(r=back_r(dr), k=back_k(dk), v=back_v(dv))
            return dx, dparams | {"o": do, "decay": dw * w, "bonus": dbonus}

        return (y, (average, x[:, -1:])), back

    def state_size(self, tokens=None):
        return 4 * self.width


def blended(params, x, shifted):
    """z @ W.T, z = μ ⊙ x + (1 - μ) ⊙ shifted, x one token before; back(dy) -> dx, dparams."""
    mu = params["mu"]
    y, back_linear = linear_layer(params, mu * x + (1 - mu) * shifted)

    def back(dy):
        dz, dparams = back_linear(dy)
        dx = mu * dz
        dx[:, :-1] += ((1 - mu) * dz)[:, 1:]
        return dx, dparams | {"mu": (dz * (x - shifted)).sum(axis=(0, 1))}

    return y, back
