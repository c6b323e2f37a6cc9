"""DeltaNet: Schlag, Irie and Schmidhuber 2021, "Linear transformers are secretly fast weight
programmers", in the layer of Yang et al. 2024, "Parallelizing linear transformers with the delta
rule over sequence length".

A memory of key-value pairs in which a new value replaces what was stored under its key. Time
O(n (C + h) d) with chunks of C tokens, memory O(n d); state d²/H, plus the convolutions'
3 (conv - 1) d.
"""

import numpy as np

from minisum.errors import UserError
from minisum.mixers.base import Mixer, affine, from_heads, join, keep_real, normal_linears, to_heads
from minisum.ops import causal_conv, delta_rule, l2_norm, rms_norm, sigmoid, silu, split_heads


class DeltaNet(Mixer):
    """y = RMSNorm(o) @ Wo.T, o = the delta rule's reading in each head; causal only.

    o_t = q_t @ S_t / √h, S_t = S_{t-1} + β_t k_t.T @ (v_t - k_t @ S_{t-1}). q, k, v = SiLU of a
    causal convolution over `conv` tokens of a linear map of x (conv=0: the linear map alone); q and
    k of length one; β = σ(x @ Wbeta.T), one a head. The norm is in each head, one gain for all. No
    biases.

    Backward, upwards: the norm, `ops.delta_rule`, the lengths, the convolutions.
    """

    can_be_bidirectional = False

    def __init__(self, width, heads=1, max_len=512, causal=False, conv=4):
        super().__init__(width, heads, max_len, causal)
        self.conv = checked_conv(conv)

    def init(self, rng):
        d, H = self.width, self.heads
        sizes = {"q": (d, d), "k": (d, d), "v": (d, d), "beta": (H, d), "o": (d, d)}
        arrays = normal_linears(rng, sizes)
        arrays |= conv_init(rng, self.conv, {"q": d, "k": d, "v": d})
        return arrays | {"norm": np.ones(d // H)}

    def mix(self, params, x, mask, state):
        S, *before = (None,) * 4 if state is None else state
        (said, before), back_said = queries_keys_values(params, x, mask, self.heads, before)
        (o, S), back_rule = delta_rule(*said, None, S)
        normed, back_norm = rms_norm(o, params["norm"], 1e-5)
        y, back_o = from_heads(params, normed)

        def back(dy):
            dnormed, dparams_o = back_o(dy)
            do, dnorm = back_norm(dnormed)
            *dsaid, _, _ = back_rule((do, None))
            dx, dparams = back_said(*dsaid)
            return dx, dparams | dparams_o | {"norm": dnorm}

        return (y, (S, *before)), back

    def state_size(self, tokens=None):
        return self.width**2 // self.heads + 3 * max(self.conv - 1, 0) * self.width


def checked_conv(taps):
    if taps < 0:
        raise UserError(f"conv is a number of tokens, or 0 for no convolution, not {taps}")
    return taps


def conv_init(rng, taps, widths):
    """conv_{name} (taps, width) for each, uniform within ±1/√taps; none for taps = 0."""
    limit = max(taps, 1) ** -0.5
    return {f"conv_{k}": rng.uniform(-limit, limit, (taps, w)) for k, w in widths.items() if taps}


def queries_keys_values(params, x, mask, heads, before):
    """What a delta rule reads of each token: q of length 1/√h, k of length one, v, and β.

    before: the states of q's, k's and v's convolutions -> ((q, k, v, β), the states after x);
    back(dq, dk, dv, dβ) -> dx, dparams.
    """
    (q, q_state), back_q = conv_heads(params, x, "q", heads, before[0])
    (k, k_state), back_k = conv_heads(params, x, "k", heads, before[1])
    (v, v_state), back_v = conv_heads(params, x, "v", heads, before[2])
    unit_q, back_unit_q = l2_norm(q)
    unit_k, back_unit_k = l2_norm(k)
    z, back_z = to_heads(params, x, "beta", heads)
    beta, back_sigmoid = sigmoid(z)
    scale = q.shape[-1] ** -0.5

    def back(dq, dk, dv, dbeta):
        return join(
            back_q(back_unit_q(dq * scale)),
            back_k(back_unit_k(dk)),
            back_v(dv),
            back_z(back_sigmoid(keep_real(dbeta, mask))),
        )

    said = (unit_q * scale, unit_k, v, keep_real(beta, mask))
    return (said, (q_state, k_state, v_state)), back


def conv_heads(params, x, name, heads, state):
    """Heads of SiLU(conv(W{name} x)), or of W{name} x if params has no conv_{name}.

    -> (heads (B, H, n, h), the convolution's state or None); back(dheads) -> dx, dparams.
    """
    key = f"conv_{name}"
    if key not in params:
        y, back_heads = to_heads(params, x, name, heads)
        return (y, None), back_heads
    flat, back_affine = affine(params, x, name)
    (mixed, state), back_conv = causal_conv(flat, params[key], state)
    active, back_silu = silu(mixed)
    y, back_split = split_heads(active, heads)

    def back(dy):
        dflat, dconv, _ = back_conv((back_silu(back_split(dy)), None))
        dx, dparams = back_affine(dflat)
        return dx, dparams | {key: dconv}

    return (y, state), back
