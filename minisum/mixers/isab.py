"""Induced set attention: Lee et al. 2019, "Set Transformer: a framework for attention-based
permutation-invariant neural networks", equations 9 and 10 (ISAB).

m learned vectors, the points, attend to all tokens, and the tokens to the results: self-attention
through m points. Time O(n m d), memory O(n (d + m H)). Not causal, and so without a state; the
order of the tokens does not matter.
"""

import math

from minisum import init
from minisum.backend import array_module
from minisum.layers import linear_layer
from minisum.mixers.base import Mixer
from minisum.ops import attention, merge_heads, relu, split_heads


class InducedSetAttention(Mixer):
    """y = MAB(x, MAB(I, x)), I (m, d) learned; in both directions only.

    MAB(x, z) = o + relu(o @ Wo.T + bo), o = q + concat_heads(softmax(q @ k.T / √d) @ v), q a linear
    map of x, k and v of z, with bias. (√d of the whole width, and the residual is the projected
    query, as in the paper.) points: m. The two blocks are the layers gather and spread. Without the
    optional layer norms.

    Backward, upwards: o gets dy directly and through relu; q gets o's gradient directly and through
    `ops.attention`; the gradient of the second block's z is the dy of the first; dI is summed over
    texts.
    """

    can_be_causal = False

    def __init__(self, width, heads=1, max_len=512, causal=False, points=32):
        super().__init__(width, heads, max_len, causal)
        self.points = points

    def init(self, rng):
        d, m = self.width, self.points
        blocks = {
            name: {layer: init.linear(rng, d, d) for layer in "qkvo"}
            for name in ("gather", "spread")
        }
        limit = math.sqrt(6 / (d + m * d))  # Glorot's, as PyTorch counts an array (1, m, d)
        return blocks | {"points": rng.uniform(-limit, limit, (m, d))}

    def mix(self, params, x, mask, state):
        points = params["points"]
        each = array_module(x).broadcast_to(points, (len(x), *points.shape))
        found, back_gather = self.block(params["gather"], each, x, mask)
        y, back_spread = self.block(params["spread"], x, found)

        def back(dy):
            dx, dfound, dspread = back_spread(dy)
            deach, dx_gather, dgather = back_gather(dfound)
            dparams = {"gather": dgather, "spread": dspread, "points": deach.sum(axis=0)}
            return dx + dx_gather, dparams

        return (y, None), back

    def block(self, params, x, z, mask=None):
        """MAB; back(dy) -> dx, dz, dparams."""
        scale = self.heads**-0.5  # attention itself divides by the root of a head's width
        flat, back_q = linear_layer(params["q"], x)
        k, back_k = linear_layer(params["k"], z)
        v, back_v = linear_layer(params["v"], z)
        (q, back_q_split), (k, back_k_split), (v, back_v_split) = (
            split_heads(a, self.heads) for a in (flat, k, v)
        )
        attended, back_attend = attention(q * scale, k, v, mask)
        joined, back_join = merge_heads(attended)
        o = flat + joined
        projected, back_o = linear_layer(params["o"], o)
        positive, back_relu = relu(projected)

        def back(dy):
            do, dparams_o = back_o(back_relu(dy))
            do = do + dy
            dq, dk, dv, _ = back_attend(back_join(do))
            dx, dparams_q = back_q(do + back_q_split(dq) * scale)
            dz_k, dparams_k = back_k(back_k_split(dk))
            dz_v, dparams_v = back_v(back_v_split(dv))
            dparams = {"q": dparams_q, "k": dparams_k, "v": dparams_v, "o": dparams_o}
            return dx, dz_k + dz_v, dparams

        return o + positive, back
