"""Linear attention: Katharopoulos et al. 2020, "Transformers are RNNs".

Softmax attention weighs a value by exp(q·k/√h); here by φ(q)·φ(k) with φ(x) = elu(x) + 1. A product
of features can be summed over keys before any query is known. Time O(n d h), memory O(n d);
state H (h² + h): in each head the sum of φ(k).T @ v and that of φ(k).
"""

from minisum import init
from minisum.mixers.base import Mixer, from_heads, join, keep_real, to_heads
from minisum.ops import elu_plus_one, kernel_attention


class LinearAttention(Mixer):
    """y = o @ Wo.T + bo, o_t = Σ_s φ(q_t)·φ(k_s) v_s / (Σ_s φ(q_t)·φ(k_s) + 1e-6) in each head.

    q, k, v = linear maps of x with bias; s runs over all real tokens or, if causal, s <= t.
    The backward pass is that of `ops.kernel_attention`, then dq = dφ ⊙ φ'(q), and k alike.
    """

    def init(self, rng):
        return {name: init.linear(rng, self.width, self.width) for name in "qkvo"}

    def mix(self, params, x, mask, state):
        q, back_q = to_heads(params["q"], x, self.heads)
        k, back_k = to_heads(params["k"], x, self.heads)
        v, back_v = to_heads(params["v"], x, self.heads)
        phi_q, back_phi_q = elu_plus_one(q)
        phi_k, back_phi_k = elu_plus_one(k)
        phi_k = keep_real(phi_k, mask)
        (o, state), back_core = kernel_attention(phi_q, phi_k, v, state, self.causal)
        y, back_o = from_heads(params["o"], o)

        def back(dy):
            do, dparams_o = back_o(dy)
            dphi_q, dphi_k, dv, _ = back_core((do, None))
            dq, dk = back_phi_q(dphi_q), back_phi_k(keep_real(dphi_k, mask))
            dx, dparams = join(q=back_q(dq), k=back_k(dk), v=back_v(dv))
            return dx, dparams | {"o": dparams_o}

        return (y, state), back

    def state_size(self, tokens=None):
        h = self.width // self.heads
        return self.heads * (h * h + h)
