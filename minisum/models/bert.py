"""BERT's encoder, with any mixer in attention's place, and a classifier that reads it.

    x₀ = LN(E[ids] + P[place] + T[0])     T: token types, of which texts of one part have the first
    x_l = block_l(x_{l-1})                minisum.models.blocks, with GELU and the norm after

Devlin et al. 2019, "BERT: Pre-training of deep bidirectional transformers for language
understanding".
"""

from minisum import init, mixers
from minisum.backend import array_module
from minisum.layers import norm_layer, position_layer, token_places
from minisum.models.blocks import Block, Stack
from minisum.models.encoder import EncoderClassifier
from minisum.ops import gelu
from minisum.params import add

DEVIATION = 0.02  # of the first values of tables


class BertEncoder(Stack):
    """The blocks, and the input to the first of them; the arguments are `Encoder`'s.

    types: the rows of T. eps: that of all layer norms, 1e-12 in BERT.
    """

    def __init__(self, mixer, width, layers, max_len, heads, d_ff, types=2, eps=1e-12):
        scale = 1 / max_len if mixers.parse_name(mixer)[0] == "summation" else 1.0
        sizes = {"width": width, "heads": heads, "max_len": max_len}
        blocks = [
            Block(mixers.build(mixer, **sizes), d_ff, gelu, "after", scale, eps=eps)
            for _ in range(layers)
        ]
        super().__init__(blocks, width, max_len, "none", norm=False)
        self.types, self.eps = types, eps

    def init(self, rng):
        tables = {"positions": self.max_len, "types": self.types}
        drawn = {name: rng.normal(0.0, DEVIATION, (n, self.width)) for name, n in tables.items()}
        return drawn | super().init(rng) | {"norm": init.norm(self.width)}

    def __call__(self, params, x, mask=None):
        """x (B, n, d), vectors of words -> out like x; back(dout, grads) -> dx."""
        places = None if mask is None else token_places(x, mask)
        x, back_positions = position_layer(params, x, "add", places=places)
        x = x + params["types"][0]
        xp = array_module(x)
        if mask is not None:
            x = xp.where(mask[:, :, None], x, 0)
        x, back_norm = norm_layer(params["norm"], x, self.eps)
        out, back_blocks = super().__call__(params, x, mask)

        def back(dout, grads):
            dx, dnorm = back_norm(back_blocks(dout, grads))
            if mask is not None:
                dx = xp.where(mask[:, :, None], dx, 0)
            _, dpositions = back_positions(dx)
            add(grads, {"norm": dnorm, "types": dx.sum(axis=(0, 1))[None]} | dpositions)
            return dx

        return out, back


class BertClassifier(EncoderClassifier):
    """features = mean_t out_t over the real tokens or, with pooling "first", out of [CLS].

    encoder: layers, heads, d_ff, types, eps, as for `BertEncoder`. Padding stands on the right.
    """

    kind, deviation = BertEncoder, DEVIATION

    def __init__(self, mixer, vocab, width, classes, max_len, encoder, pooling=None, **options):
        self.first = pooling == "first"
        options["pooling"] = None if self.first else pooling
        super().__init__(mixer, vocab, width, classes, max_len, encoder, **options)

    def pooled(self, ids, mask):
        if not self.first:
            return mask
        xp = array_module(ids)
        return xp.broadcast_to(xp.arange(ids.shape[1]) == 0, ids.shape)
