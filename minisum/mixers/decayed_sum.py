"""A sum with fixed decay: summation with a time scale for each channel.

The elementwise relative of retention (Sun et al. 2023, equation 5, with keys and queries of 1).
In both directions: the same on either side (Afzal et al. 2025, LION-D).
Time O(n d²), of which O(n d) for the sum; state d.
"""

import numpy as np

from minisum.backend import array_module, constant
from minisum.mixers.base import decayed
from minisum.mixers.summation import Summation


class DecayedSum(Summation):
    """y_t = h_t @ Wo.T + bo, h_t = γ ⊙ h_{t-1} + u_t, u and its two forms as in Summation.

    Not causal, y_t = Σ_s γ^|t-s| ⊙ u_s. γ is not learned: 1 - γ runs geometrically from 1/2 to
    1/max_len over the channels, so that they remember for 2 to max_len tokens.

    If causal, the gradient is the same recurrence from the end: du_t = dh_t + γ ⊙ du_{t+1}.
    """

    def aggregate(self, u, mask, state):
        xp = array_module(u)
        forget = np.geomspace(1 / 2, 1 / max(self.max_len, 2), self.width)
        log_decay = constant(np.log1p(-forget), xp, u.dtype)[None, None]
        if mask is not None:
            log_decay = xp.where(mask[:, :, None], log_decay, 0)
        elif not self.causal:
            log_decay = xp.broadcast_to(log_decay, (1, *u.shape[1:]))
        (h, state), back_sum = decayed(self.causal, u, log_decay, state=state)
        return (h, state), lambda dh: back_sum((dh, None))[0]
