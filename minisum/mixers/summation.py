"""Direct summation: P. Ekin, "Summation-based transformers", the released code (2025).

Tokens do not look at each other. Each says what it has to say, and what was said is added up.
Time O(n d²), all of it in the linear maps; memory O(n d); state while generating: the sum, d.
"""

from minisum import init
from minisum.backend import array_module
from minisum.mixers.base import Mixer, affine, uniform_linears
from minisum.ops import relu, running_sum, sum_tokens


class Summation(Mixer):
    """y_t = Σ_s relu(x_s @ W.T), over all real tokens s or, if causal, over s <= t.

    two_layer: y_t = Σ_s relu(relu(x_s @ W1.T) @ W2.T) @ Wo.T + bo, the published language model's
    form and the default if causal; the other is the published classifier's. The maps inside have no
    bias, so that a zero token adds nothing.

    A sum hands its gradient to every term: du_s = Σ dy_t over the tokens t that read s, which for
    the running sum is the running sum from the other end. Then back through the linear maps.

    The sum grows with the length of the text. Subclasses replace it by other weights: `weigh`.
    """

    def __init__(self, width, heads=1, max_len=512, causal=False, two_layer=None):
        super().__init__(width, heads, max_len, causal)
        self.two_layer = causal if two_layer is None else two_layer

    def init(self, rng):
        d = self.width
        if not self.two_layer:
            return {"W": init.glorot_uniform(rng, d, d)}
        hidden = {name: init.fan_in_uniform(rng, d, d) for name in ("W1", "W2")}
        return hidden | uniform_linears(rng, "o", d)

    def mix(self, params, x, mask, state):
        u, back_u = said(params, x, ("1", "2") if self.two_layer else ("",))
        (s, state), back_weigh = self.weigh(u, mask, state)
        if not self.two_layer:
            return (s, state), lambda dy: back_u(back_weigh(dy))
        y, back_o = affine(params, s, "o")

        def back(dy):
            ds, dparams_o = back_o(dy)
            dx, dparams = back_u(back_weigh(ds))
            return dx, dparams | dparams_o

        return (y, state), back

    def weigh(self, u, mask, state):
        """u (B, n, d), zero at padding -> the sums that each token reads, and the state."""
        if not self.causal:
            return total(u)
        sums_and_state, back_sum = running_sum(u, state)
        return sums_and_state, lambda ds: back_sum((ds, None))[0]

    def state_size(self, tokens=None):
        return self.width


def said(params, x, names):
    """relu(x @ W.T), once for each of `names`, one after the other; back(du) -> dx, dparams."""
    backs = []
    for name in names:
        projected, back_affine = affine(params, x, name)
        x, back_relu = relu(projected)
        backs.append((back_affine, back_relu))

    def back(dx):
        dparams = {}
        for back_affine, back_relu in reversed(backs):
            dx, gradients = back_affine(back_relu(dx))
            dparams |= gradients
        return dx, dparams

    return x, back


def total(u):
    """The sum over all tokens, read by each of them: (s (B, n, d), None), back(ds) -> du."""
    xp = array_module(u)
    shape = u.shape
    s, back_sum = sum_tokens(u)

    def back(ds):
        return back_sum(ds.sum(axis=1))[0]

    return (xp.broadcast_to(s[:, None], shape), None), back
