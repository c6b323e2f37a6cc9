"""No mixing at all: the projection block of P. Ekin's attention-driven transformers (2025).

The ablation for every other mixer: whatever it cannot do needs mixing. Time O(n d²), no state.
"""

from minisum import init
from minisum.layers import linear_layer
from minisum.mixers.base import Mixer
from minisum.ops import gelu


class Projection(Mixer):
    """y_t = GELU(x_t @ W.T): each token by itself, and so both causal and bidirectional.

    With z = x @ W.T: dz = dy ⊙ GELU'(z), dx = dz @ W, dW = dz.T @ x.
    """

    def init(self, rng):
        return {"project": init.linear(rng, self.width, self.width, bias=False)}

    def mix(self, params, x, mask, state):
        z, back_project = linear_layer(params["project"], x)
        y, back_gelu = gelu(z)

        def back(dy):
            dx, dproject = back_project(back_gelu(dy))
            return dx, {"project": dproject}

        return (y, ()), back

    def state_size(self, tokens=None):
        return 0
