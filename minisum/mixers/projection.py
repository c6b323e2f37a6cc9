"""No mixing at all: the projection block of P. Ekin's attention-driven transformers (2025).

The ablation of every other mixer: what it cannot do, the mixing did. Time O(n d²), no state.
"""

from minisum import init
from minisum.mixers.base import Mixer, affine
from minisum.ops import gelu


class Projection(Mixer):
    """y_t = GELU(x_t @ W.T): each token by itself, hence causal and not, as one likes.

    With z = x @ W.T: dz = dy ⊙ GELU'(z), dx = dz @ W, dW = dz.T @ x.
    """

    def init(self, rng):
        return {"W": init.fan_in_uniform(rng, self.width, self.width)}

    def mix(self, params, x, mask, state):
        projected, back_affine = affine(params, x, "")
        y, back_gelu = gelu(projected)
        return (y, ()), lambda dy: back_affine(back_gelu(dy))

    def state_size(self, tokens=None):
        return 0
