"""Attention within a window: Beltagy, Peters and Cohan 2020, "Longformer: the long-document
transformer", section 3.1; in blocks, Qin et al. 2022, "The devil in linear transformer".

Softmax attention that looks back a fixed number of tokens, and so costs the same at every token.
With L layers a token sees L (w - 1) tokens back. Time O(n w d), memory O(n (d + w H)); state the
last w keys and values, 2 w d.
"""

from minisum.errors import UserError
from minisum.mixers.attention import Attention
from minisum.mixers.base import Packed
from minisum.ops import window_attention


class Window(Packed, Attention):
    """y = concat_heads(window_attention(q, k, v)) @ Wo.T + bo, q = x @ Wq.T + bq, and k, v alike.

    window: w, the tokens that a token sees, itself included. The causal form slides: those from
    t - w + 1 to t. The other is block-diagonal: tokens 0 to w - 1 see each other, then the next w.
    Only real tokens count. head_width, draw: as in Attention.

    Backward: as in Attention, with `ops.window_attention` for `ops.attention`.
    """

    def __init__(
        self, width, heads=1, max_len=512, causal=False, window=64, head_width=None, draw="glorot"
    ):
        super().__init__(width, heads, max_len, causal, head_width, draw)
        if window < 1:
            raise UserError(f"a window is a number of tokens from 1 on, not {window}")
        self.window = window

    def attend(self, q, k, v, mask):
        return window_attention(q, k, v, mask, self.window, self.causal)

    def mix(self, params, x, mask, state):
        (y, (k, v)), back = super().mix(params, x, mask, state)
        return (y, (k[:, :, -self.window :], v[:, :, -self.window :])), back

    def state_size(self, tokens=None):
        return super().state_size(self.window if tokens is None else min(tokens, self.window))
