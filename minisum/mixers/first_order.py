"""Attention to first order: the softmax replaced by its linear expansion at equal weights.

softmax(l)_s = (1 + l_s - mean(l)) / n + O(l²): the mean of the values plus a product without
softmax. SimpleTRON (Yorsh et al. 2021) is this without the 1 and the means. Time O(n d h), memory
O(n d). Not causal, and so without a state.
"""

import math

from minisum import init
from minisum.layers import token_places
from minisum.mixers.base import Mixer, from_heads, join, keep_real, to_heads
from minisum.ops import full_product


class FirstOrder(Mixer):
    """y = concat_heads(v̄ + q @ ((k - k̄).T @ v) / (n √h)) @ Wo.T + bo; in both directions only.

    q, k, v = linear maps of x with bias; k̄ and v̄ are means over the n real tokens. As in softmax
    attention the bias of the keys changes nothing.

    Backward: the product's gradients are those of `ops.full_product`; through v̄ each value receives
    Σ_t do / n; through k - k̄ the gradient loses its mean, as the keys do.
    """

    can_be_causal = False

    def init(self, rng):
        return init.attention(rng, self.width, self.heads, self.width // self.heads)

    def mix(self, params, x, mask, state):
        q, back_q = to_heads(params["q"], x, self.heads)
        k, back_k = to_heads(params["k"], x, self.heads)
        v, back_v = to_heads(params["v"], x, self.heads)
        count = token_places(x, mask)[:, -1:, None, None] + 1
        share = (1 / count).astype(x.dtype)  # (B or 1, 1, 1, 1)
        scale = share / math.sqrt(self.width // self.heads)

        def mean(z):
            return keep_real(z, mask).sum(axis=2, keepdims=True) * share

        centred = keep_real(k - mean(k), mask)
        (o, _), back_product = full_product(q, centred, keep_real(v, mask))
        y, back_o = from_heads(params["o"], mean(v) + o * scale)

        def back(dy):
            do, dparams_o = back_o(dy)
            dq, dcentred, dv, *_ = back_product((do * scale, None))
            dk = keep_real(dcentred - mean(dcentred), mask)
            dv = keep_real(dv + do.sum(axis=2, keepdims=True) * share, mask)
            dx, dparams = join(q=back_q(dq), k=back_k(dk), v=back_v(dv))
            return dx, dparams | {"o": dparams_o}

        return (y, None), back
