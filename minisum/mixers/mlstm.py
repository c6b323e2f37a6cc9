"""mLSTM: Beck et al. 2024, "xLSTM: extended long short-term memory", in the layer of the released
code.

A key-value matrix with a forget gate and an exponential input gate per head; what is read is
divided by the sum of what the gates let in. Queries and keys pass a short convolution. Time
O(n (C + e/H) e) with chunks of C tokens and e = expand d, memory O(n d); state e²/H + e + H, plus
the convolution's (conv - 1) e.
"""

import numpy as np

from minisum.backend import array_module
from minisum.errors import UserError
from minisum.layers import linear_layer
from minisum.mixers.base import Packed, join
from minisum.mixers.mamba2 import first_convolution, silu_of_convolution
from minisum.ops import layer_norm, merge_heads, mlstm, silu, softplus, split_heads

BLOCK = 4


class MLSTM(Packed):
    """y = ((LayerNorm(o) + skip ⊙ c) ⊙ SiLU(z)) @ Wo.T, o = `ops.mlstm` of q, k/√h and v.

    Causal only. [u, z] = x @ Wup.T, each e = expand d wide; c = SiLU of a causal convolution of u
    over `conv` tokens, with bias. q, k = maps of c and v a map of u in blocks of 4 channels,
    W (e/4, 4, 4). log i = [q, k, v] @ Wi.T + bi, log f = logsigmoid([q, k, v] @ Wf.T + bf), one
    number per head (layers input and forget). The norm is in each head, with a gain per channel and
    no bias. Initial values: up and the blocks N(0, 2/(5d)), o N(0, 4/d) (published: divided by the
    number of blocks), input and forget zero but bi N(0, 0.1²) and bf from 3 to 6 over the heads,
    skip 1. (The released code rounds e up to a multiple of 64, has the gain as 1 + a parameter, and
    generates from m = 0, where this starts from -∞ as in training.)

    Backward, upwards: the gate's product rule, the norm, `ops.mlstm`, the gates, which add to dq,
    dk and dv; each block its own dy @ W; dc is the sum of the parts from q, k and the skip.
    """

    can_be_bidirectional = False

    def __init__(self, width, heads=1, max_len=512, causal=False, expand=2, conv=4):
        super().__init__(width, heads, max_len, causal)
        self.inner, self.conv = expand * width, conv
        if self.inner % BLOCK:
            raise UserError(f"mlstm: an inner width of {self.inner} has no blocks of {BLOCK}")
        if conv < 1:
            raise UserError(f"mlstm: a convolution over a number of tokens from 1 on, not {conv}")

    def init(self, rng):
        d, e, H = self.width, self.inner, self.heads
        small = np.sqrt(2 / (5 * d))
        blocks = {name: rng.normal(0, small, (e // BLOCK, BLOCK, BLOCK)) for name in "qkv"}
        return blocks | {
            "up": {"W": rng.normal(0, small, (2 * e, d))},
            "conv": first_convolution(rng, self.conv, e),
            "input": {"W": np.zeros((H, 3 * e)), "b": rng.normal(0, 0.1, H)},
            "forget": {"W": np.zeros((H, 3 * e)), "b": np.linspace(3, 6, H)},
            "norm": {"gain": np.ones(e)},
            "skip": np.ones(e),
            "o": {"W": rng.normal(0, 2 / np.sqrt(d), (d, e))},
        }

    def mix(self, params, x, mask, state):
        xp, e, H = array_module(x), self.inner, self.heads
        memory, inputs = (None, None) if state is None else state
        scale = (e // H) ** -0.5
        flat, back_up = linear_layer(params["up"], x)
        u, z = flat[..., :e], flat[..., e:]
        (c, inputs), back_conv = silu_of_convolution(params["conv"], u, inputs)
        maps = [in_blocks(params[name], a) for name, a in zip("qkv", (c, c, u), strict=True)]
        (q, back_q), (k, back_k), (v, back_v) = maps
        both = xp.concatenate([q, k, v], axis=-1)
        raw_input, back_input = linear_layer(params["input"], both)
        raw_forget, back_forget = linear_layer(params["forget"], both)
        minus_log, back_log = softplus(-raw_forget)
        heads = [split_heads(a, H) for a in (q, k * scale, v, -minus_log, raw_input)]
        (o, memory), back_memory = mlstm(*(a for a, _ in heads), memory)
        normed, back_norm = layer_norm(o, xp.ones_like(o[0, 0, 0]), xp.zeros_like(o[0, 0, 0]), 1e-5)
        joined, back_merge = merge_heads(normed)
        gain, skip = params["norm"]["gain"], params["skip"]
        gate, back_gate = silu(z)
        read = gain * joined + skip * c
        y, back_o = linear_layer(params["o"], read * gate)

        def back(dy):
            dgated, dparams_o = back_o(dy)
            dread = dgated * gate
            do = back_norm(back_merge(gain * dread))[0]
            dheads = zip(back_memory((do, None)), heads, strict=False)
            dq, dk, dv, dlog_forget, dinput = (back_head(a) for a, (_, back_head) in dheads)
            dboth, dgates = join(
                input=back_input(dinput), forget=back_forget(back_log(dlog_forget))
            )
            dc_q, dW_q = back_q(dq + dboth[..., :e])
            dc_k, dW_k = back_k(dk * scale + dboth[..., e : 2 * e])
            du, dW_v = back_v(dv + dboth[..., 2 * e :])
            du_conv, dconv = back_conv(dc_q + dc_k + skip * dread)
            dz = back_gate(dgated * read)
            dx, dup = back_up(xp.concatenate([du + du_conv, dz], axis=-1))
            return dx, dgates | {
                "q": dW_q,
                "k": dW_k,
                "v": dW_v,
                "up": dup,
                "conv": dconv,
                "norm": {"gain": (dread * joined).sum(axis=(0, 1))},
                "skip": (dread * c).sum(axis=(0, 1)),
                "o": dparams_o,
            }

        return (y, (memory, inputs)), back

    def state_size(self, tokens=None):
        e, H = self.inner, self.heads
        return e * e // H + e + H + (self.conv - 1) * e


def in_blocks(W, x):
    """Each four channels times their own matrix: W (e/4, 4, 4), x (B, n, e) -> y like x.

    back(dy) -> dx, dW. Sums of four products: BLAS is slow with matrices as small as these.
    """
    xp = array_module(x)
    blocks = x.reshape(*x.shape[:2], *W.shape[:2])
    y = sum(W[:, :, j] * blocks[..., j : j + 1] for j in range(BLOCK))

    def back(dy):
        dy = dy.reshape(blocks.shape)
        dx = sum(W[:, i] * dy[..., i : i + 1] for i in range(BLOCK))
        dW = [(dy * blocks[..., j : j + 1]).sum(axis=(0, 1)) for j in range(BLOCK)]
        return dx.reshape(x.shape), xp.stack(dW, axis=-1)

    return y.reshape(x.shape), back
