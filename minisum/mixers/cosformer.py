"""cosFormer: Qin et al. 2022, "cosFormer: rethinking softmax in attention".

Linear attention with φ = relu and weights that fall with distance, cos(θ_t - θ_s). As
cos(a - b) = cos a cos b + sin a sin b, the cosine is a product of features too. Time O(n d h) with
features twice as wide, memory O(n d); state H (2h² + 2h) + 1, the last for the position.
"""

import math

from minisum import init
from minisum.backend import array_module
from minisum.layers import token_places
from minisum.mixers.base import Mixer, from_heads, join, keep_real, to_heads
from minisum.ops import kernel_attention, relu


class CosFormer(Mixer):
    """y = o @ Wo.T + bo, o_t = Σ_s w_ts v_s / max(Σ_s w_ts, 1e-6) in each head.

    w_ts = relu(q_t)·relu(k_s) cos(θ_t - θ_s); q, k, v = linear maps of x with bias; s runs over all
    real tokens or, if causal, s <= t. θ_t = (π/2) t / max_len, t = 1, 2, ... counting real tokens,
    so that no cosine is negative. (The published code divides by the length of the input instead of
    a constant: a prefix of a text then gives other outputs than the whole text, and cannot be
    continued.)

    Backward: `ops.kernel_attention` on the doubled features [q sin θ, q cos θ]; each q gets
    dq = dfirst sin θ + dsecond cos θ where q > 0, each k alike.
    """

    def init(self, rng):
        return {name: init.linear(rng, self.width, self.width) for name in "qkvo"}

    def mix(self, params, x, mask, state):
        core_state, start = (None, 0) if state is None else state
        end = start + x.shape[1]
        self.check_length(end)
        q, back_q = to_heads(params["q"], x, self.heads)
        k, back_k = to_heads(params["k"], x, self.heads)
        v, back_v = to_heads(params["v"], x, self.heads)
        theta = (token_places(x, mask, start) + 1) * (math.pi / 2 / self.max_len)
        wide_q, back_wide_q = _features(q, theta)
        wide_k, back_wide_k = _features(keep_real(k, mask), theta)
        (o, core_state), back_core = kernel_attention(
            wide_q, wide_k, v, core_state, self.causal, clamp=True
        )
        y, back_o = from_heads(params["o"], o)

        def back(dy):
            do, dparams_o = back_o(dy)
            dwide_q, dwide_k, dv, _ = back_core((do, None))
            dq, dk = back_wide_q(dwide_q), keep_real(back_wide_k(dwide_k), mask)
            dx, dparams = join(q=back_q(dq), k=back_k(dk), v=back_v(dv))
            return dx, dparams | {"o": dparams_o}

        return (y, (core_state, end)), back

    def state_size(self, tokens=None):
        h = self.width // self.heads
        return self.heads * (2 * h * h + 2 * h) + 1


def _features(x, theta):
    """[relu(x) sin θ, relu(x) cos θ].   x (B, H, n, h), theta (B or 1, n) -> (B, H, n, 2h)"""
    xp = array_module(x)
    sin, cos = (f(theta).astype(x.dtype)[:, None, :, None] for f in (xp.sin, xp.cos))
    positive, back_relu = relu(x)
    h = x.shape[-1]

    def back(dwide):
        return back_relu(dwide[..., :h] * sin + dwide[..., h:] * cos)

    return xp.concatenate([positive * sin, positive * cos], axis=-1), back
