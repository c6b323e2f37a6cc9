"""A sum with a forget gate: Qin, Yang and Zhong 2023, "Hierarchically gated recurrent neural
network for sequence modeling" (HGRN), equation 1 in real numbers; in both directions as in Afzal et
al. 2025 (LION), with a key of 1.

Time O(n d²), of which O(n d) for the recurrence; memory O(n d); state d.
"""

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.layers import linear_layer
from minisum.mixers.base import Mixer, decayed, join
from minisum.ops import relu, sigmoid, softplus


class GatedSum(Mixer):
    """y = h @ Wo.T + bo, h_t = f_t ⊙ h_{t-1} + (1 - f_t) ⊙ u_t.

    That is the causal form; the other is `ops.both_ways_sum` of (1 - f) ⊙ u. The share kept is
    f = σ(z), z = x @ Wf.T + bf (layer forget); u = relu(x @ W.T). 1 - f = σ(-z) and
    log f = -softplus(-z), both without cancellation. bf is drawn from log U(1, max_len - 1), so
    that channels remember for 1 to max_len tokens (Tallec and Ollivier 2018, "Can recurrent neural
    networks warp time?"). (The paper's layer has SiLU, a lower bound of f and an output gate.)

    With i = (1 - f) ⊙ u, di and dlog_f are those of the sum: du = di ⊙ (1 - f), and z
    gets two parts, dz = dlog_f ⊙ σ(-z) - di ⊙ u ⊙ f ⊙ (1 - f).
    """

    def init(self, rng):
        d = self.width
        project, forget = init.linear(rng, d, d, bias=False), init.linear(rng, d, d)
        forget["b"] = np.log(rng.uniform(1, max(self.max_len - 1, 2), d))
        return {"project": project, "forget": forget, "o": init.linear(rng, d, d)}

    def mix(self, params, x, mask, state):
        xp = array_module(x)
        z, back_z = linear_layer(params["forget"], x)
        projected, back_project = linear_layer(params["project"], x)
        u, back_relu = relu(projected)
        new, back_new = sigmoid(-z)
        minus_log_f, back_log = softplus(-z)
        log_f = -minus_log_f
        if mask is not None:
            log_f = xp.where(mask[:, :, None], log_f, 0)
        (h, state), back_sum = decayed(self.causal, new * u, log_f, state=state)
        y, back_o = linear_layer(params["o"], h)

        def back(dy):
            dh, dparams_o = back_o(dy)
            dinput, dlog_f, _ = back_sum((dh, None))
            if mask is not None:
                dlog_f = xp.where(mask[:, :, None], dlog_f, 0)
            dz = back_log(dlog_f) - back_new(dinput * u)
            dx, dparams = join(forget=back_z(dz), project=back_project(back_relu(dinput * new)))
            return dx, dparams | {"o": dparams_o}

        return (y, state), back

    def state_size(self, tokens=None):
        return self.width
