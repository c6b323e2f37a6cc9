"""RetNet: Sun et al. 2023, "Retentive network: a successor to transformer", equations 5 to 8.

Linear attention whose weights decay by γ per token of distance, one γ per head; positions enter as
rotations. In both directions: the decayed mask of Afzal et al. 2025,
"Linear attention for efficient bidirectional sequence modeling" (LION-D). Time O(n (C + h) d) with
chunks of C tokens, memory O(n d); state H K V + 1, that is expand_v d²/H + 1, the last for the
position.
"""

import numpy as np

from minisum import init
from minisum.backend import array_module, constant
from minisum.errors import UserError
from minisum.layers import token_places
from minisum.mixers.base import Mixer, decayed, gated_from_heads, join, keep_real, to_heads
from minisum.ops import rotate


class RetNet(Mixer):
    """y = (RMSNorm(o) ⊙ SiLU(x @ Wgate.T)) @ Wo.T, o_t = Σ_s γ^|t-s| (q_t·k_s / √K) v_s.

    s runs over all real tokens or, if causal, s <= t. q, k = rotated linear maps of x (K = d/H a
    head), v = x @ Wv.T (V = expand_v d/H), γ_i = 1 - 2^(-5-i) in head i = 0, 1, ... The norm is
    taken in each head, with one gain for all of them. No biases. As in fla's layer. The authors'
    torchscale turns neighbouring channels, by angles t 10000^(-i / (K/2 - 1)), and has no gain; the
    norm undoes what it divides the weights by.

    Backward, upwards: the gate's product rule, the norm, `ops.causal_product` or
    `ops.both_ways_product` with a constant decay, the opposite rotation.
    """

    def __init__(self, width, heads=1, max_len=512, causal=False, expand_v=2):
        super().__init__(width, heads, max_len, causal)
        if width // heads % 2:
            raise UserError(f"RetNet rotates pairs: a head of odd width {width // heads} has none")
        self.value_width = expand_v * width

    def init(self, rng):
        d, e = self.width, self.value_width
        sizes = {"q": (d, d), "k": (d, d), "v": (e, d), "gate": (e, d), "o": (d, e)}
        layers = {k: init.linear(rng, *size, "normal", bias=False) for k, size in sizes.items()}
        return layers | {"norm": {"gain": np.ones(e // self.heads)}}

    def mix(self, params, x, mask, state):
        xp = array_module(x)
        S, start = (None, 0) if state is None else state
        H = self.heads
        scale = (self.width // H) ** -0.5
        positions = token_places(x, mask, start)
        log_gamma = np.log1p(-(2.0 ** (-5 - np.arange(H))))[None, :, None, None]
        log_decay = xp.broadcast_to(constant(log_gamma, xp, x.dtype), (1, H, x.shape[1], 1))
        log_decay = keep_real(log_decay, mask)

        q, back_q = to_heads(params["q"], x, H)
        k, back_k = to_heads(params["k"], x, H)
        v, back_v = to_heads(params["v"], x, H)
        turned_q, back_turn_q = rotate(q * scale, positions)
        turned_k, back_turn_k = rotate(k, positions)
        product = turned_q, turned_k, v, log_decay
        (o, S), back_product = decayed(self.causal, *product, state=S)
        y, back_gated = gated_from_heads(params, o, x, H)

        def back(dy):
            do, dx_gate, dparams_gated = back_gated(dy)
            dturned_q, dturned_k, dv, *_ = back_product((do, None))
            dq, dk = back_turn_q(dturned_q)[0] * scale, back_turn_k(dturned_k)[0]
            dx, dparams = join(q=back_q(dq), k=back_k(dk), v=back_v(dv))
            return dx + dx_gate, dparams | dparams_gated

        return (y, (S, start + x.shape[1])), back

    def state_size(self, tokens=None):
        return self.width * self.value_width // self.heads + 1
