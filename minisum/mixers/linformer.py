"""Linformer: Wang et al. 2020, "Linformer: self-attention with linear complexity".

Softmax attention over r mixtures of tokens: learned maps along the text turn n keys into r keys and
n values into r values. Time O(n r d), memory O(n (d + r H)). Not causal, since every mixture
contains all tokens, and so without a state.
"""

from minisum import init
from minisum.backend import array_module
from minisum.layers import linear_layer
from minisum.mixers.base import Packed, from_heads, join
from minisum.ops import attention, linear, split_heads


class Linformer(Packed):
    """y = concat_heads(attention(q, E.T @ k, F.T @ v)) @ Wo.T + bo; in both directions only.

    q, k, v = linear maps of x without bias; E and F (max_len, r), layers k_along and v_along, of
    which a text of n tokens uses the first n rows, initially uniform within ±1/√r. rank: r. max_len
    bounds the text. The conventions are those of lucidrains' PyTorch port.

    Backward: the attention's, then the maps along the text: for the keys dk = E @ dkeys and dE =
    Σ k @ dkeys.T; likewise for the values.
    """

    can_be_causal = False

    def __init__(self, width, heads=1, max_len=512, causal=False, rank=256):
        super().__init__(width, heads, max_len, causal)
        self.rank = rank

    def init(self, rng):
        d, limit = self.width, self.rank**-0.5
        layers = {name: init.linear(rng, d, d, bias=False) for name in "qkv"}
        for name in ("k_along", "v_along"):
            layers[name] = {"W": rng.uniform(-limit, limit, (self.max_len, self.rank))}
        return layers | {"o": init.linear(rng, d, d)}

    def mix(self, params, x, mask, state):
        self.check_length(x.shape[1])
        flat, back_q = linear_layer(params["q"], x)
        q, back_split = split_heads(flat, self.heads)
        k, back_k = self.along(params["k"], params["k_along"]["W"], x)
        v, back_v = self.along(params["v"], params["v_along"]["W"], x)
        o, back_attend = attention(q, k, v)
        y, back_o = from_heads(params["o"], o)

        def back(dy):
            do, dparams_o = back_o(dy)
            dq, dk, dv, _ = back_attend(do)
            dx_k, dparams_k, dk_along = back_k(dk)
            dx_v, dparams_v, dv_along = back_v(dv)
            layers = {"q": back_q(back_split(dq)), "k": (dx_k, dparams_k), "v": (dx_v, dparams_v)}
            dx, dparams = join(**layers)
            along = {"k_along": {"W": dk_along}, "v_along": {"W": dv_along}}
            return dx, dparams | along | {"o": dparams_o}

        return (y, None), back

    def along(self, params, W, x):
        """The heads (B, H, r, h) of W.T @ (x @ Wk.T); back(dy) -> dx, dparams, dW."""
        n = x.shape[1]
        flat, back_layer = linear_layer(params, x)  # (B, n, d)
        mixed, back_mixed = linear(flat.swapaxes(1, 2), W[:n].T)  # (B, d, r)
        y, back_split = split_heads(mixed.swapaxes(1, 2), self.heads)

        def back(dy):
            dturned, dW = back_mixed(back_split(dy).swapaxes(1, 2))
            full = array_module(W).zeros_like(W)
            full[:n] = dW.T
            return *back_layer(dturned.swapaxes(1, 2)), full

        return y, back
