"""Post-norm blocks: a way to mix tokens, then a small network for each token, both with a shortcut.

    z = LN₁(x + mixer(x))          y = LN₂(z + f(z @ Wa.T + ba) @ Wb.T + bb)

With summation as the mixer and f = ReLU this is the block of the summation papers; without mixing
and with f = GELU it is the projection block of their follow-up, "Attention-driven transformers".
"""

import numpy as np

from minisum import init, mixers
from minisum.backend import array_module
from minisum.errors import UserError
from minisum.mixers.attention import Attention
from minisum.ops import gelu, layer_norm, linear, relu

SUM_SCALES = ("length", "none")


def parse_pattern(text):
    """Names of the layers, first to last: "summation*3,attention" is a list of four.

    Raises UserError for a name that is no layer and for a count that is no number from 1 on.
    """
    names = []
    for part in text.split(","):
        name, star, count = (piece.strip() for piece in part.partition("*"))
        if name not in layer_names():
            known = ", ".join(layer_names())
            raise UserError(f"layer pattern {text!r}: {name!r} is no causal mixer; known: {known}")
        if star and not (count.isascii() and count.isdigit() and 1 <= int(count) <= 1024):
            raise UserError(f"layer pattern {text!r}: {count!r} is not a number from 1 to 1024")
        names += [name] * (int(count) if star else 1)
    return names


def layer_names():
    """The mixers that can stand in a pattern: those that have a causal form."""
    return sorted(name for name, mixer in mixers.TABLE.items() if mixer.can_be_causal)


def build(name, width, heads, max_len, d_ff, sum_scale="none"):
    """The block around the causal mixer called `name`, with the activation published with it.

    sum_scale "length" multiplies what a summation says by 1/max_len, "none" by nothing.
    """
    if sum_scale not in SUM_SCALES:
        raise UserError(f"sum scale {sum_scale!r}: choose one of {', '.join(SUM_SCALES)}")
    mixer = mixers.build(name, width=width, heads=heads, max_len=max_len, causal=True)
    activation = gelu if name == "projection" else relu
    if name != "summation":
        return Block(mixer, width, d_ff, activation)
    scale = 1 / max_len if sum_scale == "length" else 1.0
    return Block(mixer, width, d_ff, activation, scale, longest=max_len)


class Block:
    """One layer around `mixer`. width d, d_ff the width inside the token network, activation f.

    scale: what the mixer's output is multiplied by before it joins x. longest: the most tokens that
    training adds up, for a mixer whose output grows with their number. The parameters are a dict:
    the mixer's names under "mixer.", and the block's own.
    """

    def __init__(self, mixer, width, d_ff, activation, scale=1.0, longest=None):
        self.mixer, self.scale, self.longest = mixer, scale, longest
        self.width, self.d_ff, self.activation = width, d_ff, activation

    def init(self, rng):
        d, inner = self.width, self.d_ff
        arrays = {f"mixer.{name}": a for name, a in self._init_mixer(rng).items()}
        arrays |= linear_init(rng, "a", inner, d) | linear_init(rng, "b", d, inner)
        for norm in ("norm1", "norm2"):
            arrays[f"{norm}.gain"], arrays[f"{norm}.bias"] = np.ones(d), np.zeros(d)
        return arrays

    def _init_mixer(self, rng):
        if not isinstance(self.mixer, Attention):
            return self.mixer.init(rng)
        arrays = {}  # drawn like the model's other linear maps, which is how it was published
        for name in "qkvo":
            arrays |= linear_init(rng, name, self.width, self.width)
        return arrays

    def __call__(self, params, x, documents=None):
        """y like x (B, n, d). With `documents`, none of them sees another."""
        mix = self.mixer if documents is None else documents.mix_apart(self.mixer)
        mixed, back_mixer = mix(mixer_share(params), x)
        y, back_rest = self._after_mixing(params, x + self._scaled(mixed))

        def back(dy):
            djoined, dparams = back_rest(dy)
            dx, dmixer = back_mixer(self._scaled(djoined))
            dparams |= {f"mixer.{name}": g for name, g in dmixer.items()}
            return djoined + dx, dparams

        return y, back

    def _scaled(self, a):
        return a if self.scale == 1 else a * self.scale

    def step(self, params, x, state=None, read=0):
        """The next tokens x (B, n, d), after the `read` ones that `state` remembers.

        From `longest` tokens on, t of them count as `longest`: their sum is multiplied by
        longest / t, and so stays as large as the largest that the layers above learned to read.
        """
        mixed, state = self.mixer.step(mixer_share(params), x, state)
        scale = self.scale
        if self.longest is not None and read + x.shape[1] > self.longest:
            xp = array_module(x)
            count = read + 1 + xp.arange(x.shape[1])[:, None]
            scale = (scale * xp.minimum(1, self.longest / count)).astype(x.dtype)
        y, _ = self._after_mixing(params, x + mixed * scale)
        return y, state

    def _after_mixing(self, params, joined):
        """All from the first norm on; back(dy) -> djoined, dparams."""
        z, back_norm1 = layer_norm(joined, params["norm1.gain"], params["norm1.bias"])
        inner, back_a = linear(z, params["Wa"], params["ba"])
        active, back_active = self.activation(inner)
        outer, back_b = linear(active, params["Wb"], params["bb"])
        y, back_norm2 = layer_norm(z + outer, params["norm2.gain"], params["norm2.bias"])

        def back(dy):
            g = {}
            dz, g["norm2.gain"], g["norm2.bias"] = back_norm2(dy)
            dactive, g["Wb"], g["bb"] = back_b(dz)
            dthrough, g["Wa"], g["ba"] = back_a(back_active(dactive))
            djoined, g["norm1.gain"], g["norm1.bias"] = back_norm1(dz + dthrough)
            return djoined, g

        return y, back


def mixer_share(params):
    """The mixer's part of a block's parameters, by the mixer's own names."""
    return {name[6:]: a for name, a in params.items() if name.startswith("mixer.")}


def linear_init(rng, name, fan_out, fan_in):
    """W{name} and b{name} of a linear layer, uniform within ±1/√fan_in, as PyTorch draws them."""
    limit = 1 / np.sqrt(fan_in)
    W = init.fan_in_uniform(rng, fan_out, fan_in)
    return {f"W{name}": W, f"b{name}": rng.uniform(-limit, limit, fan_out)}
