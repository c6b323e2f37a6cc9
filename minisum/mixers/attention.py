"""Multi-head softmax attention: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.

Each head compares a token's query with the keys of all tokens and averages their values with the
softmax of the comparisons as weights. Time O(n² d); memory O(n² H), but O(n) for long texts, which
are computed in blocks. State in generation: all keys and values so far, 2 n d.
"""

from minisum import init
from minisum.backend import array_module
from minisum.mixers.base import Mixer, from_heads, join, to_heads
from minisum.ops import attention, attention_with_dropout


class Attention(Mixer):
    """y = concat_heads(attention(q, k, v)) @ Wo.T + bo, q = x @ Wq.T + bq, and k, v alike.

    head_width: the width of one head, d/H by default. (The summation papers' classifier gives each
    head the model's whole width.) draw: how initial values are drawn, see `init.attention`.
    dropout: the rate at which attention weights are dropped in training, where `keep` is given.

    Backward, upwards: the output map, `ops.attention` in each head, the maps to q, k and v, whose
    dx are added.
    """

    def __init__(
        self, width, heads=1, max_len=512, causal=False, head_width=None, draw="glorot", dropout=0.0
    ):
        super().__init__(width, 1 if head_width else heads, max_len, causal)
        self.heads, self.draw, self.dropout = heads, draw, dropout
        self.inner = heads * (head_width or width // heads)

    def init(self, rng):
        return init.attention(rng, self.width, self.heads, self.inner // self.heads, self.draw)

    def mix(self, params, x, mask, state, keep=None):
        """keep (B, H, n, n) bool: the attention weights that survive dropout; None: all."""
        q, back_q = to_heads(params["q"], x, self.heads)
        k, back_k = to_heads(params["k"], x, self.heads)
        v, back_v = to_heads(params["v"], x, self.heads)
        if state is not None:
            concatenate = array_module(x).concatenate
            k, v = (concatenate(pair, axis=2) for pair in zip(state, (k, v), strict=True))
        if keep is None:
            o, back_attend = self.attend(q, k, v, mask)
        else:
            o, back_attend = attention_with_dropout(q, k, v, keep, mask, self.dropout, self.causal)
        y, back_output = self.output(params, o)
        n = x.shape[1]

        def back(dy):
            do, dparams_output = back_output(dy)
            dq, dk, dv, *_ = back_attend(do)
            dk, dv = dk[:, :, -n:], dv[:, :, -n:]
            dx, dparams = join(q=back_q(dq), k=back_k(dk), v=back_v(dv))
            return dx, dparams | dparams_output

        return (y, (k, v)), back

    def attend(self, q, k, v, mask):
        return attention(q, k, v, mask, self.causal)

    def output(self, params, o):
        y, back_o = from_heads(params["o"], o)

        def back(dy):
            do, dparams_o = back_o(dy)
            return do, {"o": dparams_o}

        return y, back

    def state_size(self, tokens=None):
        return 2 * self.inner * (self.max_len if tokens is None else tokens)
