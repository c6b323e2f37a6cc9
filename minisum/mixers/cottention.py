"""Cottention: Mongaras, Dohm and Larson 2024, "Cottention: linear transformers with cosine
attention".

Attention weights are cosines between query and key, divided by a learned power of the text's length
instead of their sum. Cosines are inner products of unit vectors, so keys and values can be summed
into a matrix before any query is known. Time O(n d h), memory O(n d); state d²/H + 1, the last for
the position.
"""

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.errors import UserError
from minisum.layers import token_places
from minisum.mixers.base import Mixer, from_heads, join, keep_real, to_heads
from minisum.ops import causal_product, full_product, l2_norm, rotate, sigmoid


class Cottention(Mixer):
    """y = o @ Wo.T (+ bo), o_t = Σ_s cos(q_t, k_s) v_s / c_s^σ(m) in each head.

    q, k, v = linear maps of x; m one number per head, initially 1/2. The two forms are those of the
    released code. Bidirectional: s runs over all real tokens and c is their number; all maps have
    biases. Causal: s <= t and c_s = s + 1, the position of the value, not of the query; no biases;
    queries and keys are rotated by their positions (in half-split pairs, where the released code
    pairs neighbouring channels: the same but for the order of the channels).

    Backward: `ops.full_product` or `ops.causal_product`; the lengths by `ops.l2_norm` (eps 1e-24);
    with w_s = c_s^-σ(m) and v' = w v: dv = w dv', and dm = -Σ dv' ⊙ v' log(c) σ(m) (1 - σ(m)).
    """

    def __init__(self, width, heads=1, max_len=512, causal=False):
        super().__init__(width, heads, max_len, causal)
        if causal and width // heads % 2:
            raise UserError(
                f"Cottention rotates pairs: a head of odd width {width // heads} has none"
            )

    def init(self, rng):
        bias, d = not self.causal, self.width
        layers = {name: init.linear(rng, d, d, "normal", bias=bias) for name in "qkvo"}
        return layers | {"m": np.full(self.heads, 0.5)}

    def mix(self, params, x, mask, state):
        xp, H = array_module(x), self.heads
        S, start = (None, 0) if state is None else state
        places = token_places(x, mask, start)
        q, back_q = to_heads(params["q"], x, H)
        k, back_k = to_heads(params["k"], x, H)
        v, back_v = to_heads(params["v"], x, H)
        unit_q, back_unit_q = l2_norm(q, 1e-24)
        unit_k, back_unit_k = l2_norm(k, 1e-24)
        back_turn_q = back_turn_k = lambda dy: (dy,)
        if self.causal:
            unit_q, back_turn_q = rotate(unit_q, places)
            unit_k, back_turn_k = rotate(unit_k, places)
            count = places + 1
        else:
            count = xp.full((1, 1), x.shape[1]) if mask is None else mask.sum(axis=1)[:, None]
        log_count = xp.log(xp.maximum(count, 1).astype(x.dtype))[:, None, :, None]
        power, back_power = sigmoid(params["m"])
        scale = xp.exp(-power[:, None, None] * log_count)  # (B or 1, H, n or 1, 1)
        product = causal_product if self.causal else full_product
        scaled = keep_real(v * scale, mask)
        (o, S), back_product = product(unit_q, unit_k, scaled, state=S)
        y, back_o = from_heads(params["o"], o)

        def back(dy):
            do, dparams_o = back_o(dy)
            dunit_q, dunit_k, dscaled, *_ = back_product((do, None))
            dscaled = keep_real(dscaled, mask)
            dq = back_unit_q(back_turn_q(dunit_q)[0])
            dk = back_unit_k(back_turn_k(dunit_k)[0])
            dm = back_power(-(dscaled * scaled * log_count).sum(axis=(0, 2, 3)))
            dx, dparams = join(q=back_q(dq), k=back_k(dk), v=back_v(dscaled * scale))
            return dx, dparams | {"o": dparams_o, "m": dm}

        return (y, (S, start + x.shape[1])), back

    def state_size(self, tokens=None):
        return self.width**2 // self.heads + 1
