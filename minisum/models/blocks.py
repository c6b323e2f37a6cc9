"""Blocks, and a stack of them: what language models, encoders and forecasters are made of.

A block mixes the tokens, then changes each token by a small network; both are added to their
input. The layer norm stands before each of the two or after it:

    before   z = x + mixer(LN₁(x))      y = z + f(LN₂(z) @ Wup.T + bup) @ Wdown.T + bdown
    after    z = LN₁(x + mixer(x))      y = LN₂(z + f(z @ Wup.T + bup) @ Wdown.T + bdown)

After: Vaswani et al. 2017; before: Xiong et al. 2020, "On Layer Normalization in the Transformer
Architecture".
"""

from minisum import init, mixers
from minisum.backend import array_module
from minisum.errors import UserError
from minisum.layers import linear_layer, norm_layer, position_layer, token_places, unchanged
from minisum.ops import dropout
from minisum.params import add


class Block:
    """One layer around `mixer`.   x (B, n, d) -> y like x

    d_ff: the width inside the token network, 0 for no such network. activation: f. norm: "before"
    or "after". scale: what the mixer's output is multiplied by before it joins x. dropout: the rate
    inside and after the token network. longest: the most tokens that training sums up, for a mixer
    whose output grows with their number.
    """

    def __init__(
        self, mixer, d_ff, activation, norm="after", scale=1.0, dropout=0.0, longest=None
    ):
        self.mixer, self.d_ff, self.activation = mixer, d_ff, activation
        self.before, self.after = norm_layer, unchanged
        if norm == "after":
            self.before, self.after = unchanged, norm_layer
        self.scale, self.dropout, self.longest = scale, dropout, longest

    def init(self, rng):
        d = self.mixer.width
        params = {"mixer": self.mixer.init(rng), "norm1": init.norm(d)}
        if self.d_ff:
            up, down = init.linear(rng, self.d_ff, d), init.linear(rng, d, self.d_ff)
            params |= {"norm2": init.norm(d), "up": up, "down": down}
        return params

    def __call__(self, params, x, mask=None, documents=None, keep=None):
        """mask (B, n), or `documents`, none of which sees another. keep: dropout's survivors inside
        and after the token network, while training.
        """
        h, back_norm = self.before(params["norm1"], x)
        if documents:
            mixed, back_mixer = documents.mix(self.mixer, params["mixer"], h)
        else:
            mixed, back_mixer = self.mixer(params["mixer"], h, mask)
        y, back_rest = self.after_mixing(params, x + mixed * self.scale, keep)

        def back(dy):
            dsum, dparams = back_rest(dy)
            dh, dmixer = back_mixer(dsum * self.scale)
            dx, dnorm = back_norm(dh)
            dnorm1 = dparams["norm1"] | dnorm
            return dsum + dx, dparams | {"mixer": dmixer, "norm1": dnorm1}

        return y, back

    def after_mixing(self, params, x, keep=None):
        """What follows once the mixer's output is added; back(dy) -> dx, dparams."""
        z, back_norm1 = self.after(params["norm1"], x)
        if not self.d_ff:

            def back_without_network(dy):
                dx, dnorm1 = back_norm1(dy)
                return dx, {"norm1": dnorm1}

            return z, back_without_network
        h, back_before = self.before(params["norm2"], z)
        inner, back_up = linear_layer(params["up"], h)  # (B, n, d_ff)
        active, back_active = self.activation(inner)
        if keep:
            active, back_inner = dropout(active, keep[0], self.dropout)
        outer, back_down = linear_layer(params["down"], active)  # (B, n, d)
        if keep:
            outer, back_outer = dropout(outer, keep[1], self.dropout)
        y, back_after = self.after(params["norm2"], z + outer)

        def back(dy):
            dsum, dnorm2 = back_after(dy)
            douter = back_outer(dsum)[0] if keep else dsum
            dactive, ddown = back_down(douter)
            if keep:
                dactive, _ = back_inner(dactive)
            dh, dup = back_up(back_active(dactive))
            dz, dnorm = back_before(dh)
            dx, dnorm1 = back_norm1(dsum + dz)
            return dx, {"norm1": dnorm1, "norm2": dnorm2 | dnorm, "up": dup, "down": ddown}

        return y, back

    def step(self, params, x, state=None, read=0):
        """The next tokens x (B, n, d), after the `read` ones that `state` remembers.

        From `longest` tokens on, t of them count as `longest`: their sum is multiplied by
        longest / t, and so stays as large as the largest that the layers above learned to read.
        """
        h, _ = self.before(params["norm1"], x)
        mixed, state = self.mixer.step(params["mixer"], h, state)
        scale = self.scale
        if self.longest is not None and read + x.shape[1] > self.longest:
            xp = array_module(x)
            count = read + 1 + xp.arange(x.shape[1])[:, None]
            scale = (scale * xp.minimum(1, self.longest / count)).astype(x.dtype)
        y, _ = self.after_mixing(params, x + mixed * scale)
        return y, state


class Stack:
    """Positions, then one block after the other, then a layer norm if `norm`.

    positions, offset: see `position_layer`; deviation: that of the first positions. max_len: the
    longest text in tokens, and the number of positions.
    """

    def __init__(self, blocks, width, max_len, positions, offset=0.0, deviation=1.0, norm=True):
        self.blocks, self.width, self.max_len = blocks, width, max_len
        self.positions, self.offset, self.deviation = positions, offset, deviation
        self.norm = norm_layer if norm else unchanged

    def init(self, rng):
        params = {}
        if self.positions != "none":
            params["positions"] = rng.normal(0.0, self.deviation, (self.max_len, self.width))
        params["blocks"] = {str(i): block.init(rng) for i, block in enumerate(self.blocks)}
        return params | ({"norm": init.norm(self.width)} if self.norm is norm_layer else {})

    def __call__(self, params, x, mask=None, documents=None, keeps=None):
        """x (B, n, d) -> out like x; back(dout, grads) adds as each layer returns, and gives dx.

        params: with the stack's names, and others. mask (B, n) bool: what `out` holds at padding is
        finite and does not depend on what stood there. documents: none sees another. keeps: each
        block's survivors of dropout.
        """
        xp = array_module(x)
        real = None if mask is None else mask[:, :, None]
        x, back_position = self.place(params, x, mask, documents)
        if mask is not None:
            x = xp.where(real, x, 0)
        backs = []
        for i, block in enumerate(self.blocks):
            keep = keeps[i] if keeps else None
            x, back_block = block(params["blocks"][str(i)], x, mask, documents, keep)
            backs.append(back_block)
        out, back_norm = self.norm(params.get("norm"), x)

        def back(dout, grads):
            dx, dnorm = back_norm(dout)
            if dnorm:
                add(grads["norm"], dnorm)
            for i in reversed(range(len(backs))):
                dx, dparams = backs[i](dx)
                add(grads["blocks"][str(i)], dparams)
            if mask is not None:
                dx = xp.where(real, dx, 0)
            dx, dpositions = back_position(dx)
            add(grads, dpositions)
            return dx

        return out, back

    def place(self, params, x, mask=None, documents=None):
        """x with its positions, counted among the real tokens or in each document."""
        n, places = x.shape[1], None
        if documents:
            n, places = documents.shape[1], documents.places
        elif mask is not None:
            places = token_places(x, mask)
        if self.max_len and n > self.max_len:
            raise UserError(f"{n} tokens at once: the model was built for {self.max_len} tokens")
        return position_layer(params, x, self.positions, self.offset, places)


def parse_pattern(text, causal=True):
    """Names of the layers, first to last: "summation*3,attention" is a list of four.

    Raises UserError for what is no mixer of that form and for a count that is no number from 1 on.
    """
    known = layer_names(causal)
    names = []
    for part in text.split(","):
        name, star, count = (word.strip() for word in part.partition("*"))
        if name not in known:
            form = "causal" if causal else "bidirectional"
            raise UserError(
                f"layer pattern {text!r}: {name!r} is no {form} mixer; known: {', '.join(known)}"
            )
        if star and not (count.isascii() and count.isdigit() and 1 <= int(count) <= 1024):
            raise UserError(f"layer pattern {text!r}: {count!r} is not a number from 1 to 1024")
        names += [name] * (int(count) if star else 1)
    return names


def layer_names(causal=True):
    """The mixers that can stand in a pattern: those that have a causal (bidirectional) form."""
    return sorted(
        name
        for name, mixer in mixers.TABLE.items()
        if (mixer.can_be_causal if causal else mixer.can_be_bidirectional)
    )
