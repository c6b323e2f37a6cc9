"""AFT-simple: Zhai et al. 2021, "An attention free transformer", equation 3.

Each channel averages its own values over time, weighted by the softmax of its own keys. Time O(n d)
beside the linear maps, memory O(n d); state 3d: for each channel the largest key, and numerator and
denominator divided by its exponential.
"""

from minisum import init
from minisum.layers import linear_layer
from minisum.mixers.base import Mixer, join
from minisum.ops import running_softmax_pool, sigmoid, softmax_pool


class AFTSimple(Mixer):
    """y_t = (σ(q_t) ⊙ a_t) @ Wo.T + bo, a_t = Σ_s e^{k_s} ⊙ v_s / Σ_s e^{k_s}, channel by channel.

    q, k, v = linear maps of x with bias; s runs over all real tokens or, if causal, s <= t.

    Backward: product rule at the gate, with o = σ(q) ⊙ a: da = do ⊙ σ(q) (summed over t where all
    tokens read one average) and dσ = do ⊙ a; then `ops.softmax_pool`, or its running form.
    """

    def init(self, rng):
        return {name: init.linear(rng, self.width, self.width) for name in "qkvo"}

    def mix(self, params, x, mask, state):
        q, back_q = linear_layer(params["q"], x)
        k, back_k = linear_layer(params["k"], x)
        v, back_v = linear_layer(params["v"], x)
        gate, back_gate = sigmoid(q)
        if self.causal:
            (average, state), back_pool = running_softmax_pool(k, v, mask, state)
        else:
            pooled, back_pool = softmax_pool(k, v, mask)
            average = pooled[:, None]
        y, back_o = linear_layer(params["o"], gate * average)

        def back(dy):
            do, dparams_o = back_o(dy)
            daverage = do * gate
            dk, dv, *_ = back_pool((daverage, None) if self.causal else daverage.sum(axis=1))
            dq = back_gate(do * average)
            dx, dparams = join(q=back_q(dq), k=back_k(dk), v=back_v(dv))
            return dx, dparams | {"o": dparams_o}

        return (y, state), back

    def state_size(self, tokens=None):
        return 3 * self.width
