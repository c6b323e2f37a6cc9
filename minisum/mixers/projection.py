"""No mixing at all: the projection block of P. Ekin's attention-driven transformers (2025).

The ablation of every other mixer: what it cannot do, the mixing did. Time O(n d²), no state.
"""

from minisum import init
from minisum.backend import array_module
from minisum.mixers.base import Mixer, affine
from minisum.ops import gelu

# Tokens at a time: what GELU needs in between then stays in a core's cache.
PIECE = 1024


class Projection(Mixer):
    """y_t = GELU(x_t @ W.T): each token by itself, hence causal and not, as one likes.

    With z = x @ W.T: dz = dy ⊙ GELU'(z), dx = dz @ W, dW = dz.T @ x.
    """

    def init(self, rng):
        return {"W": init.fan_in_uniform(rng, self.width, self.width)}

    def mix(self, params, x, mask, state):
        xp = array_module(x)
        pieces = [slice(start, start + PIECE) for start in range(0, x.shape[1], PIECE)]
        ys, backs = [], []
        for piece in pieces:
            projected, back_affine = affine(params, x[:, piece], "")
            y, back_gelu = gelu(projected)
            ys.append(y)
            backs.append((back_affine, back_gelu))

        def back(dy):
            dxs, dW = [], 0
            for piece, (back_affine, back_gelu) in zip(pieces, backs, strict=True):
                dx, dparams = back_affine(back_gelu(dy[:, piece]))
                dxs.append(dx)
                dW = dW + dparams["W"]
            return xp.concatenate(dxs, axis=1), {"W": dW}

        return (xp.concatenate(ys, axis=1), ()), back

    def state_size(self, tokens=None):
        return 0
