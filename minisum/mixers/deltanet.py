"""DeltaNet: Schlag, Irie and Schmidhuber 2021, "Linear transformers are secretly fast weight
programmers", in the layer of Yang et al. 2024, "Parallelizing linear transformers with the delta
rule over sequence length".

A memory of key-value pairs in which a new value replaces the old one under its key. Time
O(n (C + h) d) with chunks of C tokens, memory O(n d); state d²/H, plus the convolutions'
3 (conv - 1) d.
"""

import numpy as np

from minisum import init
from minisum.errors import UserError
from minisum.layers import linear_layer
from minisum.mixers.base import Mixer, from_heads, join, keep_real, normed_layer, to_heads
from minisum.ops import causal_conv, delta_rule, l2_norm, sigmoid, silu, split_heads


class DeltaNet(Mixer):
    """y = RMSNorm(o) @ Wo.T, o the output of the delta rule in each head; causal only.

    o_t = q_t @ S_t / √h, S_t = S_{t-1} + β_t k_t.T @ (v_t - k_t @ S_{t-1}). q, k, v = SiLU of a
    causal convolution over `conv` tokens of a linear map of x (conv=0: the linear map alone, where
    the fla library keeps SiLU); q and k of length one; β = beta_max σ(x @ Wbeta.T), one per head.
    The norm is in each head, one gain for all. No biases.

    beta_max=2 lets a token change the sign of what is stored under its key, which parity needs:
    Grazzi et al. 2025, "Unlocking state-tracking in linear RNNs through negative eigenvalues".

    Backward, upwards: the norm, `ops.delta_rule`, the lengths, the convolutions.
    """

    can_be_bidirectional = False

    def __init__(self, width, heads=1, max_len=512, causal=False, conv=4, beta_max=1.0):
        super().__init__(width, heads, max_len, causal)
        self.conv, self.beta_max = checked_conv(conv), checked_beta(beta_max)

    def init(self, rng):
        d, H = self.width, self.heads
        sizes = {"q": (d, d), "k": (d, d), "v": (d, d), "beta": (H, d), "o": (d, d)}
        layers = {k: init.linear(rng, *size, "normal", bias=False) for k, size in sizes.items()}
        add_convolutions(rng, layers, self.conv)
        return layers | {"norm": {"gain": np.ones(d // H)}}

    def mix(self, params, x, mask, state):
        S, *convs = (None,) * 4 if state is None else state
        (inputs, convs), back_inputs = queries_keys_values(
            params, x, mask, self.heads, convs, self.beta_max
        )
        (o, S), back_rule = delta_rule(*inputs, None, S)
        y, back_normed = normed_layer(params, o, from_heads)

        def back(dy):
            do, dparams_normed = back_normed(dy)
            *dinputs, _, _ = back_rule((do, None))
            dx, dparams = back_inputs(*dinputs)
            return dx, dparams | dparams_normed

        return (y, (S, *convs)), back

    def state_size(self, tokens=None):
        return self.width**2 // self.heads + 3 * max(self.conv - 1, 0) * self.width


def checked_conv(taps):
    if taps < 0:
        raise UserError(f"conv is a number of tokens, or 0 for no convolution, not {taps}")
    return taps


def checked_beta(most):
    if not 0 < most <= 2:
        raise UserError(f"beta_max is a number above 0 and at most 2, not {most}")
    return most


def add_convolutions(rng, layers, taps):
    """Give q, k and v a "conv" (taps, width) uniform within ±1/√taps; none for taps = 0."""
    if taps:
        limit = taps**-0.5
        for name in "qkv":
            layers[name]["conv"] = rng.uniform(-limit, limit, (taps, len(layers[name]["W"])))


def queries_keys_values(params, x, mask, heads, states, beta_max, steps=1):
    """The delta rule's inputs for each token: q of length 1/√h, k of length one, v, and β.

    With several steps per token, k, v and β have steps * H heads, those of one step side by side.
    states: those of the convolutions of q, k and v -> ((q, k, v, β), the states after x);
    back(dq, dk, dv, dβ) -> dx, dparams.
    """
    (q, q_state), back_q = conv_heads(params["q"], x, heads, states[0])
    (k, k_state), back_k = conv_heads(params["k"], x, steps * heads, states[1])
    (v, v_state), back_v = conv_heads(params["v"], x, steps * heads, states[2])
    unit_q, back_unit_q = l2_norm(q)
    unit_k, back_unit_k = l2_norm(k)
    z, back_z = to_heads(params["beta"], x, steps * heads)
    beta, back_sigmoid = sigmoid(z)
    scale = q.shape[-1] ** -0.5

    def back(dq, dk, dv, dbeta):
        return join(
            q=back_q(back_unit_q(dq * scale)),
            k=back_k(back_unit_k(dk)),
            v=back_v(dv),
            beta=back_z(back_sigmoid(keep_real(dbeta * beta_max, mask))),
        )

    inputs = (unit_q * scale, unit_k, v, keep_real(beta * beta_max, mask))
    return (inputs, (q_state, k_state, v_state)), back


def conv_heads(params, x, heads, state):
    """Heads of SiLU(conv(x @ W.T)), or of x @ W.T if the layer's params have no "conv".

    -> (heads (B, H, n, h), the convolution's state or None); back(dheads) -> dx, dparams.
    """
    if "conv" not in params:
        y, back_heads = to_heads(params, x, heads)
        return (y, None), back_heads
    flat, back_linear = linear_layer(params, x)
    (mixed, state), back_conv = causal_conv(flat, params["conv"], state)
    active, back_silu = silu(mixed)
    y, back_split = split_heads(active, heads)

    def back(dy):
        dflat, dconv, _ = back_conv((back_silu(back_split(dy)), None))
        dx, dparams = back_linear(dflat)
        return dx, dparams | {"conv": dconv}

    return (y, state), back
