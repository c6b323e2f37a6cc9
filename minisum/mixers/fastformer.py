"""Fastformer: Wu et al. 2021, "Fastformer: additive attention can be all you need".

All queries are pooled into one vector, which multiplies every key; the products are pooled into
another vector, which multiplies every query. Time O(n d²), of which O(n d) for the pools; memory
O(n d). Not causal, since a pool covers the whole text, and so without a state.
"""

import math

from minisum import init
from minisum.layers import linear_layer
from minisum.mixers.base import Mixer
from minisum.ops import softmax_pool


class Fastformer(Mixer):
    """y = (k̄ ⊙ q) @ Wt.T + bt + q, k̄ = pool(p), p = k ⊙ pool(q); in both directions only.

    q, k = linear maps of x with bias; the queries serve as values. pool(z) = Σ_t a_t z_t in each
    head, a the softmax over the text's real tokens of (z @ W.T + b) / √h, one number per head
    (layers alpha and beta). Initial values N(0, 0.02²).

    A pool passes dy to its vectors twice: directly, a_t dy, and through the logits. Products:
    dk̄ = Σ_t dr ⊙ q with dr = dy @ Wt, dk = dp ⊙ q̄, dq̄ = Σ_t dp ⊙ k. So dq has four parts: dy,
    dr ⊙ k̄ and the two of its pool.
    """

    can_be_causal = False

    def init(self, rng):
        d, H = self.width, self.heads
        sizes = {"q": d, "k": d, "alpha": H, "beta": H, "o": d}
        return {name: init.linear(rng, size, d, "normal") for name, size in sizes.items()}

    def mix(self, params, x, mask, state):
        q, back_q = linear_layer(params["q"], x)
        k, back_k = linear_layer(params["k"], x)
        query, back_query = self.pool(params["alpha"], q, mask)  # (B, 1, d)
        p = k * query
        key, back_key = self.pool(params["beta"], p, mask)
        y, back_o = linear_layer(params["o"], key * q)

        def back(dy):
            dr, do = back_o(dy)
            dp, dbeta = back_key((dr * q).sum(axis=1))
            dpooled, dalpha = back_query((dp * k).sum(axis=1))
            dx_q, dparams_q = back_q(dy + dr * key + dpooled)
            dx_k, dparams_k = back_k(dp * query)
            layers = {"q": dparams_q, "k": dparams_k, "alpha": dalpha, "beta": dbeta, "o": do}
            return dx_q + dx_k, layers

        return (y + q, None), back

    def pool(self, params, z, mask):
        """z (B, n, d) -> its weighted average in each head (B, 1, d); back(dy (B, d))."""
        B, n, d = z.shape
        scale = 1 / math.sqrt(d // self.heads)
        logits, back_linear = linear_layer(params, z)
        spread = (logits * scale).repeat(d // self.heads, axis=-1)
        y, back_pool = softmax_pool(spread, z, mask)

        def back(dy):
            dspread, dz, _ = back_pool(dy)
            dlogits = dspread.reshape(B, n, self.heads, -1).sum(axis=-1) * scale
            dz_logits, dparams = back_linear(dlogits)
            return dz + dz_logits, dparams

        return y[:, None], back
