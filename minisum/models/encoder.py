"""An encoder: L pre-norm blocks around any mixer, and the classifier that reads it.

    x₀ = E[ids] + P[place]                     place: how many real tokens stand before
    z  = x + mixer(LN₁(x))                     block l: x = x_{l-1}, y = x_l
    y  = z + GELU(LN₂(z) @ Wa.T + ba) @ Wb.T + bb
    out = LN(x_L)

Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture". The classifier labels
a text by the mean of `out`; minisum.models.readers has models that answer at single tokens.
"""

import numpy as np

from minisum import mixers
from minisum.backend import add_into, array_module
from minisum.errors import UserError
from minisum.models.base import through_blocks
from minisum.models.blocks import linear_init, mixer_share
from minisum.models.classifier import Classifier
from minisum.ops import (
    add_positions,
    embed,
    gelu,
    layer_norm,
    linear,
    mean_tokens,
)

POSITIONS = ("add", "none")


class EncoderBlock:
    """y like x (B, n, d), as above. d_ff 0 leaves the token network out: mixer and norm only.

    scale: what the mixer's output is multiplied by before it joins x.
    """

    def __init__(self, mixer, d_ff, scale=1.0):
        self.mixer, self.d_ff, self.scale = mixer, d_ff, scale

    def init(self, rng):
        d = self.mixer.width
        arrays = {f"mixer.{name}": a for name, a in self.mixer.init(rng).items()}
        arrays |= norm_init("norm1", d)
        if self.d_ff:
            arrays |= norm_init("norm2", d)
            arrays |= linear_init(rng, "a", self.d_ff, d) | linear_init(rng, "b", d, self.d_ff)
        return arrays

    def __call__(self, params, x, mask=None):
        normed, back_norm = layer_norm(x, params["norm1.gain"], params["norm1.bias"])
        mixed, back_mixer = self.mixer(mixer_share(params), normed, mask)
        z = x + mixed * self.scale
        y, back_network = self._token_network(params, z) if self.d_ff else (z, lambda dy: (dy, {}))

        def back(dy):
            dz, g = back_network(dy)
            dnormed, dmixer = back_mixer(dz * self.scale)
            dx, g["norm1.gain"], g["norm1.bias"] = back_norm(dnormed)
            return dz + dx, g | {f"mixer.{name}": a for name, a in dmixer.items()}

        return y, back

    def _token_network(self, params, z):
        """y = z + GELU(LN₂(z) @ Wa.T + ba) @ Wb.T + bb; back(dy) -> dz, gradients."""
        normed, back_norm = layer_norm(z, params["norm2.gain"], params["norm2.bias"])
        inner, back_a = linear(normed, params["Wa"], params["ba"])
        active, back_gelu = gelu(inner)
        outer, back_b = linear(active, params["Wb"], params["bb"])

        def back(dy):
            g = {}
            dactive, g["Wb"], g["bb"] = back_b(dy)
            dnormed, g["Wa"], g["ba"] = back_a(back_gelu(dactive))
            dz, g["norm2.gain"], g["norm2.bias"] = back_norm(dnormed)
            return dy + dz, g

        return z + outer, back


class Encoder:
    """The blocks with the positions before and the norm after them, all around one kind of mixer.

    mixer: a name in minisum.mixers.TABLE. d_ff: width of the token networks, 4 d by default, 0 for
    none. causal: whether no token sees a later one; None is "where the mixer knows no other way".
    positions: "add" learned ones, or "none" for mixers that tell order by themselves.

    A plain sum of n terms is n times as large as the token that it joins, which would be lost
    beside it: what `summation` says is divided by max_len, a factor that its weights could hold.
    """

    def __init__(
        self, mixer, width, layers, max_len, heads=4, d_ff=None, causal=None, positions="add"
    ):
        if positions not in POSITIONS:
            raise UserError(f"positions {positions!r}: choose one of {', '.join(POSITIONS)}")
        if causal is None and mixer in mixers.TABLE:
            causal = not mixers.TABLE[mixer].can_be_bidirectional
        self.width, self.max_len, self.positions = width, max_len, positions
        scale = 1 / max_len if mixer == "summation" else 1.0
        self.blocks = [
            EncoderBlock(
                mixers.build(mixer, width=width, heads=heads, max_len=max_len, causal=causal),
                4 * width if d_ff is None else d_ff,
                scale,
            )
            for _ in range(layers)
        ]

    def init(self, rng):
        arrays = {}
        if self.positions == "add":
            arrays["positions"] = rng.normal(0.0, 0.02, (self.max_len, self.width))
        for i, block in enumerate(self.blocks):
            arrays |= {f"blocks.{i}.{name}": a for name, a in block.init(rng).items()}
        return arrays | norm_init("norm", self.width)

    def __call__(self, params, x, mask=None):
        """x (B, n, d), mask (B, n) bool or None -> out (B, n, d), back(dout, grads) -> dx.

        What `out` holds at padding is finite and says nothing of what stood there.
        """
        if x.shape[1] > self.max_len:
            raise UserError(f"the encoder was built for {self.max_len} tokens, not {x.shape[1]}")
        x, back_place = self._place(params, x, mask)
        out, back_blocks = through_blocks(self.blocks, params, x, mask)

        def back(dout, grads):
            return back_place(back_blocks(dout, grads), grads)

        return out, back

    def _place(self, params, x, mask):
        """x + P, and zeros at padding, which no number that stands there then survives."""
        n = x.shape[1]
        if mask is None:
            if self.positions == "none":
                return x, lambda dx, grads: dx
            placed, back_positions = add_positions(x, params["positions"][:n])

            def back(dx, grads):
                dx, dpositions = back_positions(dx)
                add_into(grads["positions"][:n], dpositions)
                return dx

            return placed, back

        xp = array_module(x)
        real = mask[:, :, None]
        if self.positions == "none":
            return xp.where(real, x, 0), lambda dx, grads: xp.where(real, dx, 0)
        # Counted among the real tokens, a text stands where it stands alone, however padded.
        place = xp.maximum(xp.cumsum(mask, axis=1) - 1, 0)
        rows, back_rows = embed(place, params["positions"])

        def back(dx, grads):
            dx = xp.where(real, dx, 0)
            back_rows(dx)[1].add_to(grads["positions"])
            return dx

        return xp.where(real, x + rows, 0), back


class EncoderClassifier(Classifier):
    """features = mean_t out_t over the real tokens; see `Classifier` for the rest.

    encoder: layers, heads, d_ff, causal, positions, as for `Encoder`.
    """

    def __init__(self, mixer, vocab, width, classes, max_len, encoder=None, **options):
        super().__init__(vocab, width, classes, max_len, **options)
        self.encoder = Encoder(mixer, width, max_len=max_len, **({"layers": 2} | (encoder or {})))

    def init(self, rng):
        return super().init(rng) | {"embedding": embedding_init(rng, self.vocab, self.width)}

    def init_features(self, rng):
        return self.encoder.init(rng)

    def features(self, params, ids, mask):
        x, back_embed = embed(ids, params["embedding"])
        out, back_encoder = self.encoder(params, x, mask)
        features, back_pool = mean_tokens(out, mask, self.power)

        def back(dfeatures, grads):
            dout, _ = back_pool(dfeatures)
            _, dembedding = back_embed(back_encoder(dout, grads))
            dembedding.add_to(grads["embedding"])

        return features, back


def norm_init(name, width):
    return {f"{name}.gain": np.ones(width), f"{name}.bias": np.zeros(width)}


def embedding_init(rng, vocab, width):
    return rng.normal(0.0, 1.0, (vocab, width))
