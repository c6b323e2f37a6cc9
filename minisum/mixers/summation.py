"""Direct summation: P. Ekin, "Summation-based transformers", the released code (2025).

Tokens are not compared. Each token contributes a vector; the contributions are summed. Time
O(n d²), all of it in the linear maps; memory O(n d); state in generation: the sum, d.
"""

from minisum import init
from minisum.backend import array_module
from minisum.layers import linear_layer
from minisum.mixers.base import Mixer
from minisum.ops import relu, running_sum, sum_tokens


class Summation(Mixer):
    """y_t = Σ_s relu(x_s @ W.T), over all real tokens s or, if causal, over s <= t.

    two_layer: y_t = Σ_s relu(relu(x_s @ W1.T) @ W2.T) @ Wo.T + bo, the form of the published
    language model and the default if causal; the first is the published classifier's. The maps
    inside have no bias, so that a zero vector contributes nothing.

    Each term of a sum receives the sum's gradient: du_s = Σ dy_t over the tokens t that read s,
    which for the running sum is the running sum from the end. Then back through the maps.

    The sum grows with the length of the text. Subclasses replace it in `aggregate`.
    """

    def __init__(self, width, heads=1, max_len=512, causal=False, two_layer=None):
        super().__init__(width, heads, max_len, causal)
        self.two_layer = causal if two_layer is None else two_layer

    def init(self, rng):
        d = self.width
        if not self.two_layer:
            return {"project": init.linear(rng, d, d, "glorot", bias=False)}
        inner = {name: init.linear(rng, d, d, bias=False) for name in ("project1", "project2")}
        return inner | {"o": init.linear(rng, d, d)}

    def mix(self, params, x, mask, state):
        u, backs = x, []
        for name in ("project1", "project2") if self.two_layer else ("project",):
            projected, back_linear = linear_layer(params[name], u)
            u, back_relu = relu(projected)
            backs.append((name, back_linear, back_relu))
        (y, state), back_aggregate = self.aggregate(u, mask, state)
        if self.two_layer:
            y, back_o = linear_layer(params["o"], y)

        def back(dy):
            dparams = {}
            if self.two_layer:
                dy, dparams["o"] = back_o(dy)
            dx = back_aggregate(dy)
            for name, back_linear, back_relu in reversed(backs):
                dx, dparams[name] = back_linear(back_relu(dx))
            return dx, dparams

        return (y, state), back

    def aggregate(self, u, mask, state):
        """u (B, n, d), zero at padding -> what each token reads (B, n, d) and the state."""
        if not self.causal:
            total, back_sum = sum_tokens(u)
            y = array_module(u).broadcast_to(total[:, None], u.shape)
            return (y, None), lambda dy: back_sum(dy.sum(axis=1))[0]
        sums_and_state, back_running = running_sum(u, state)
        return sums_and_state, lambda dy: back_running((dy, None))[0]

    def state_size(self, tokens=None):
        return self.width
