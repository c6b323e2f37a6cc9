"""HGRN2: Qin et al. 2024, "HGRN2: gated linear RNNs with state expansion", section 3.

The gated sum with a matrix as its state: the forget gate f decays the key channels, and 1 - f is
the key. Time O(n (C + h) d) with chunks of C tokens, memory O(n d); state d²/H.
"""

import math

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.errors import UserError
from minisum.mixers.base import Mixer, decayed, join, keep_real, normed_layer, to_heads
from minisum.ops import merge_heads, sigmoid, silu, softplus


class HGRN2(Mixer):
    """y = RMSNorm(o) @ Wo.T, o_t = q_t @ S_t / √h, S_t = f_t.T ⊙ S_{t-1} + (1 - f_t).T @ v_t.

    f = λ + (1 - λ) σ(z), z = x @ Wf.T; q = SiLU(x @ Wq.T), v = x @ Wv.T; no biases. The norm runs
    over all heads. lower_bound: λ, a constant (published: learned, 0 in the first layer and larger
    in each layer above). In both directions: as in GatedLinearAttention.

    With log f = logaddexp(log λ, log(1 - λ) - softplus(-z)) and the key 1 - f = (1 - λ) σ(-z): z
    gets two parts, dz = (dlog_f / f - dkey) ⊙ (1 - λ) σ(z) σ(-z).
    """

    def __init__(self, width, heads=1, max_len=512, causal=False, lower_bound=0.0):
        super().__init__(width, heads, max_len, causal)
        if not 0 <= lower_bound < 1:
            raise UserError(f"hgrn2: a forget gate from 0 to 1 cannot be above {lower_bound}")
        self.lower_bound = lower_bound

    def init(self, rng):
        d = self.width
        layers = {name: init.linear(rng, d, d, "normal", bias=False) for name in "qfvo"}
        return layers | {"norm": {"gain": np.ones(d)}}

    def mix(self, params, x, mask, state):
        xp, H, bound = array_module(x), self.heads, self.lower_bound
        scale = (self.width // H) ** -0.5
        raw, back_q = to_heads(params["q"], x, H)
        q, back_silu = silu(raw)
        z, back_z = to_heads(params["f"], x, H)
        v, back_v = to_heads(params["v"], x, H)
        new, _ = sigmoid(-z)
        log_f = math.log1p(-bound) - softplus(-z)[0]
        if bound:
            log_f = xp.logaddexp(log_f, math.log(bound))
        product = q * scale, (1 - bound) * new, v, keep_real(log_f, mask)
        (o, state), back_product = decayed(self.causal, *product, state=state)
        joined, back_merge = merge_heads(o)
        y, back_normed = normed_layer(params, joined)

        def back(dy):
            djoined, dparams_normed = back_normed(dy)
            dq, dkey, dv, dlog_f, _ = back_product((back_merge(djoined), None))
            dlog_f = keep_real(dlog_f, mask)
            dz = (dlog_f * xp.exp(-log_f) - dkey) * (1 - bound) * new * (1 - new)
            dx, dparams = join(q=back_q(back_silu(dq * scale)), f=back_z(dz), v=back_v(dv))
            return dx, dparams | dparams_normed

        return (y, state), back

    def state_size(self, tokens=None):
        return self.width**2 // self.heads
