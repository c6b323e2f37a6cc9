"""The mean of the contributions: summation without its growth.

Zaheer et al. 2017, "Deep sets", for all tokens; Zhang, Xiong and Su 2018, "Accelerating neural
transformer via an average attention network", for those so far. Time O(n d²), state d + 1.
"""

from minisum.layers import token_places
from minisum.mixers.summation import Summation


class RunningMean(Summation):
    """y_t = (1/c) Σ_s u_s over the c tokens s that t may see; u and what follows as in Summation.

    Each token's gradient over its count: du_s = Σ dy_t / c_t over the tokens t that read s.
    """

    def aggregate(self, u, mask, state):
        sums, seen = (None, 0) if state is None else state
        (s, last), back_sum = super().aggregate(u, mask, sums)
        count = seen + token_places(u, mask) + 1
        if not self.causal:
            count = count[:, -1:]
        share = (1 / count).astype(u.dtype)[:, :, None]

        def back(dy):
            return back_sum(dy * share)

        return (s * share, (last, seen + u.shape[1])), back

    def state_size(self, tokens=None):
        return self.width + 1
