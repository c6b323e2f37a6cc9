"""Latte: Dolga, Maystre, Cobzarenco and Barber 2024, "Latent attention for linear time
transformers", with the released code of both forms.

Softmax attention through a few latents: each latent averages the values of all tokens, weighted by
their keys, and each token averages the latents, weighted by its query. Time O(n L d / H) beside the
linear maps, memory O(n d); state L (d/H + 2): of each latent numerators, denominator and largest
key.
"""

from minisum.backend import array_module
from minisum.errors import UserError
from minisum.mixers.base import Packed, from_heads, join, to_heads
from minisum.ops import full_product, latent_average
from minisum.ops.softmax_attention import softmax


class Latte(Packed):
    """y = o @ Wo.T, o_t = Σ_l softmax_l(q_t) Σ_s e^{k_sl} v_s / Σ_s e^{k_sl} in each head.

    s runs over all real tokens or, if causal, s <= t; q, k = linear maps of x to L/H numbers per
    head, v to d/H; no scale and no biases. latents: L, of all heads together. Initial values
    N(0, 1/d), which the released code truncates at two standard deviations.

    Backward: `ops.latent_average` if causal, else the product of p, a = softmax of k over the
    tokens, and v; through the softmax, dq = p ⊙ (dp - Σ dp ⊙ p), and dk likewise along the text.
    """

    def __init__(self, width, heads=1, max_len=512, causal=False, latents=64):
        super().__init__(width, heads, max_len, causal)
        self.latents = latents
        if latents < 1 or latents % heads:
            raise UserError(f"latte: {heads} heads do not divide {latents} latents")

    def init(self, rng):
        d = self.width
        sizes = {"q": self.latents, "k": self.latents, "v": d, "o": d}
        return {name: {"W": rng.normal(0, d**-0.5, (size, d))} for name, size in sizes.items()}

    def mix(self, params, x, mask, state):
        H = self.heads
        (q, back_q), (k, back_k), (v, back_v) = (to_heads(params[name], x, H) for name in "qkv")
        p = softmax(q)
        read = self.so_far if self.causal else self.of_all
        (o, state), back_read = read(p, k, v, mask, state)
        y, back_o = from_heads(params["o"], o)

        def back(dy):
            do, dparams_o = back_o(dy)
            dp, dk, dv = back_read(do)
            dq = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
            dx, dparams = join(q=back_q(dq), k=back_k(dk), v=back_v(dv))
            return dx, dparams | {"o": dparams_o}

        return (y, state), back

    def so_far(self, p, k, v, mask, state):
        o_and_state, back = latent_average(p, k, v, state)
        return o_and_state, lambda do: back((do, None))[:3]

    def of_all(self, p, k, v, mask, state):
        xp = array_module(k)
        visible = k if mask is None else xp.where(mask[:, None, :, None], k, -xp.inf)
        a = softmax(visible.swapaxes(-1, -2)).swapaxes(-1, -2)
        (o, _), back_product = full_product(p, a, v)

        def back(do):
            dp, da, dv, _ = back_product((do, None))
            return dp, a * (da - (da * a).sum(axis=2, keepdims=True)), dv

        return (o, None), back

    def state_size(self, tokens=None):
        return self.latents * (self.width // self.heads + 2)
