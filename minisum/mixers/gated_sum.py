"""A sum that decides what to forget: Qin, Yang and Zhong 2023, "Hierarchically gated recurrent
neural network for sequence modeling" (HGRN), equation 1 in real numbers.

Time O(n d²), of which O(n d) for the recurrence; memory O(n d); state d.
"""

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.mixers.base import Mixer, affine, join, uniform_linears
from minisum.mixers.summation import said
from minisum.ops import decayed_sum, sigmoid, softplus


class GatedSum(Mixer):
    """y = h @ Wo.T + bo, h_t = f_t ⊙ h_{t-1} + (1 - f_t) ⊙ u_t; causal only.

    f = σ(z), z = x @ Wf.T + bf, how much to keep; u = relu(x @ W.T). 1 - f = σ(-z) and log f =
    -softplus(-z), both without cancellation. bf is drawn such that channels remember for 1 to
    max_len tokens: log U(1, max_len - 1) (Tallec and Ollivier 2018, "Can recurrent neural
    networks warp time?").

    With i = (1 - f) ⊙ u, di and dlog_f are those of `ops.decayed_sum`: du = di ⊙ (1 - f), and z
    gets two parts, dz = dlog_f ⊙ σ(-z) - di ⊙ u ⊙ f ⊙ (1 - f).
    """

    can_be_bidirectional = False

    def init(self, rng):
        d = self.width
        arrays = {"W": init.fan_in_uniform(rng, d, d)} | uniform_linears(rng, "f", d)
        arrays["bf"] = np.log(rng.uniform(1, max(self.max_len - 1, 2), d))
        return arrays | uniform_linears(rng, "o", d)

    def mix(self, params, x, mask, state):
        xp = array_module(x)
        z, back_z = affine(params, x, "f")
        u, back_u = said(params, x, ("",))
        new, back_new = sigmoid(-z)
        minus_log_f, back_log = softplus(-z)
        log_f = -minus_log_f
        if mask is not None:
            log_f = xp.where(mask[:, :, None], log_f, 0)
        (h, state), back_sum = decayed_sum(new * u, log_f, state)
        y, back_o = affine(params, h, "o")

        def back(dy):
            dh, dparams_o = back_o(dy)
            dinput, dlog_f, _ = back_sum((dh, None))
            if mask is not None:
                dlog_f = xp.where(mask[:, :, None], dlog_f, 0)
            dz = back_log(dlog_f) - back_new(dinput * u)
            dx, dparams = join(back_z(dz), back_u(dinput * new))
            return dx, dparams | dparams_o

        return (y, state), back

    def state_size(self, tokens=None):
        return self.width
