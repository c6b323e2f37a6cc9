"""Log-linear attention: Guo et al. 2025, "Log-linear attention", the form built on Mamba-2.

Mamba-2 with several states, one for each power of two of the past: recent tokens are kept apart
from distant ones, and each token weighs the levels. Time O(n (C + N log n) d) with chunks of
C tokens, memory O(n d); state expand d N for each of L levels, L = 1 + log2(max_len) rounded up,
and the convolution's and 1.
"""

import numpy as np

from minisum import init
from minisum.mixers.base import to_heads
from minisum.mixers.mamba2 import Mamba2
from minisum.ops import log_linear_product, softplus
from minisum.ops.products import for_each_head


class LogLinear(Mamba2):
    """y as in Mamba2 with o_t = Σ_l λ_tl S_t^(l).T @ C_t + D u_t in each head; causal only.

    S^(l) is Mamba-2's state of the tokens of level l alone (`ops.log_linear_product`), λ =
    softplus(Λ ⊙ (x @ Wlevels.T)), Λ (H, L) initially 1. max_len bounds the text. With all λ = 1
    this is Mamba-2. Initial values as there, where the released code has exp(A_log) = 1, 2, ...
    over the heads.

    Backward: that of Mamba2 with the op's; with z = x @ Wlevels.T and dμ = dλ ⊙ σ(Λ ⊙ z): dz = Λ ⊙
    dμ and dΛ = Σ dμ ⊙ z.
    """

    @property
    def levels(self):
        return (self.max_len - 1).bit_length() + 1

    def init(self, rng):
        levels = init.linear(rng, self.heads * self.levels, self.width, bias=False)
        scale = np.ones((self.heads, self.levels))
        return super().init(rng) | {"levels": levels, "lambda": scale}

    def memory(self, params, x, product, state):
        self.check_length((0 if state is None else state[1]) + x.shape[1])
        scale = params["lambda"][:, None]
        z, back_z = to_heads(params["levels"], x, self.heads)  # (B, H, n, L)
        weights, back_weights = softplus(scale * z)
        query, key, *rest = product
        each = (for_each_head(a, weights) for a in (query, key))
        o_and_state, back_product = log_linear_product(*each, *rest, weights, state)

        def back(do):
            dquery, dkey, *drest, dweights, _ = back_product((do, None))
            dscaled = back_weights(dweights)
            dx, dlevels = back_z(scale * dscaled)
            dproduct = (*(a.sum(axis=1, keepdims=True) for a in (dquery, dkey)), *drest)
            return dproduct, dx, {"levels": dlevels, "lambda": (dscaled * z).sum(axis=(0, 2))}

        return o_and_state, back

    def state_size(self, tokens=None):
        e, N = self.inner, self.state_width
        return self.levels * e * N + 1 + (self.conv - 1) * (e + 2 * N)
