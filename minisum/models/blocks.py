"""Blocks, and a stack of them: what language models, encoders and forecasters are made of.

A block mixes the tokens, then applies a small network to each token; both outputs are added to
their inputs. A norm comes before each of the two or after it:

    before   z = x + mixer(LN₁(x))      y = z + f(LN₂(z) @ Wup.T + bup) @ Wdown.T + bdown
    after    z = LN₁(x + mixer(x))      y = LN₂(z + f(z @ Wup.T + bup) @ Wdown.T + bdown)

After: Vaswani et al. 2017; before: Xiong et al. 2020, "On Layer Normalization in the Transformer
Architecture".
"""

from functools import partial

from minisum import init
from minisum.backend import array_module
from minisum.errors import UserError
from minisum.layers import norm_layer, position_layer, token_network, token_places
from minisum.ops.linear import add_scaled
from minisum.params import add


class Block:
    """One layer around `mixer`.   x (B, n, d) -> y like x

    d_ff: the width inside the token network, 0 for no such network; activation and gate: see
    `layers.token_network`. norm: "before", "after", or "rms", an RMSNorm before. scale: a factor of
    the mixer's output before it is added to x. dropout: the rate inside and after the token
    network. longest: the most tokens that are summed in training, for a mixer whose output grows
    with their number. eps: the layer norms'.
    """

    def __init__(
        self, mixer, d_ff, activation, norm="after", scale=1.0, dropout=0.0, longest=None,
        gate=False, eps=1e-5,
    ):  # fmt: skip
        self.mixer, self.d_ff, self.activation = mixer, d_ff, activation
        self.norm_first, self.centred, self.gate = norm != "after", norm != "rms", gate
        self.scale, self.dropout, self.longest, self.eps = scale, dropout, longest, eps

    def init(self, rng):
        d, e, bias = self.mixer.width, self.d_ff, not self.gate
        params = {"mixer": self.mixer.init(rng), "norm1": init.norm(d, self.centred)}
        if e:
            up, down = init.linear(rng, e, d, bias=bias), init.linear(rng, d, e, bias=bias)
            params |= {"norm2": init.norm(d, self.centred), "up": up, "down": down}
        return params | ({"gate": init.linear(rng, e, d, bias=False)} if e and self.gate else {})

    def __call__(self, params, x, mask=None, keep=None, mix=None):
        """mask (B, n) bool or None. keep: dropout's survivors while training, "inner" and "outer",
        inside and after the token network, and "weights" of an attention that has dropout. mix:
        what stands in the mixer's place, mix(params, h) -> mixed, back.
        """
        keep = keep or {}
        noise = {"keep": keep["weights"]} if "weights" in keep else {}
        h = x
        if self.norm_first:
            h, back_norm1 = norm_layer(params["norm1"], h, self.eps)
        mix = mix or partial(self.mixer, mask=mask, **noise)
        mixed, back_mix = mix(params["mixer"], h)
        z = add_scaled(x, mixed, self.scale)
        if not self.norm_first:
            z, back_norm1 = norm_layer(params["norm1"], z, self.eps)
        y, back_network = self.network(params, z, keep) if self.d_ff else (z, None)

        def back(dy):
            dz, dparams = back_network(dy) if self.d_ff else (dy, {})
            if not self.norm_first:
                dz, dparams["norm1"] = back_norm1(dz)
            dh, dparams["mixer"] = back_mix(dz if self.scale == 1 else dz * self.scale)
            if self.norm_first:
                dh, dparams["norm1"] = back_norm1(dh)
            return add_scaled(dz, dh), dparams

        return y, back

    def network(self, params, z, keep):
        """The token network, with its norm and shortcut; back(dy) -> dz, dparams."""
        h = z
        if self.norm_first:
            h, back_norm2 = norm_layer(params["norm2"], h, self.eps)
        survivors = (keep["inner"], keep["outer"]) if "inner" in keep else None
        outer, back_network = token_network(params, h, self.activation, survivors, self.dropout)
        y = add_scaled(z, outer)
        if not self.norm_first:
            y, back_norm2 = norm_layer(params["norm2"], y, self.eps)

        def back(dy):
            dparams = {}
            if not self.norm_first:
                dy, dparams["norm2"] = back_norm2(dy)
            dh, dnetwork = back_network(dy)
            if self.norm_first:
                dh, dparams["norm2"] = back_norm2(dh)
            return add_scaled(dy, dh), dparams | dnetwork

        return y, back

    def step(self, params, x, state=None, read=0):
        """The next tokens x (B, n, d), after the `read` ones that `state` remembers -> y, state.

        Sums over t > `longest` tokens are multiplied by longest / t, so that they stay as large
        as the largest on which the layers above were trained.
        """

        def mix(mixer_params, h):
            mixed, after = self.mixer.step(mixer_params, h, state)
            if self.longest is not None and read + x.shape[1] > self.longest:
                xp = array_module(x)
                count = read + 1 + xp.arange(x.shape[1])[:, None]
                mixed = mixed * xp.minimum(1, self.longest / count).astype(x.dtype)
            states.append(after)
            return mixed, None

        states = []
        y, _ = self(params, x, mix=mix)
        return y, states[0]


class Stack:
    """Positions, then one block after the other, then a layer norm if `norm` ("rms": an RMSNorm).

    positions, offset: see `position_layer`; deviation: that of the first positions. max_len: the
    longest text in tokens, and the number of positions; None for no limit.
    """

    def __init__(self, blocks, width, max_len, positions, offset=0.0, deviation=1.0, norm=True):
        self.blocks, self.width, self.max_len = blocks, width, max_len
        self.positions, self.offset, self.deviation = positions, offset, deviation
        self.norm = norm

    def init(self, rng):
        params = {}
        if self.positions != "none":
            params["positions"] = rng.normal(0.0, self.deviation, (self.max_len, self.width))
        params["blocks"] = {str(i): block.init(rng) for i, block in enumerate(self.blocks)}
        return params | ({"norm": init.norm(self.width, self.norm != "rms")} if self.norm else {})

    def __call__(self, params, x, mask=None, documents=None, keeps=None):
        """x (B, n, d) -> out like x; back(dout, grads) -> dx adds as soon as a layer returns.

        params: the model's, among them the stack's. mask (B, n) bool: what `out` holds at padding
        is finite and does not depend on what stood there. documents: `Documents`, none of which
        sees another. keeps: each block's survivors of dropout.
        """
        xp, n, places = array_module(x), x.shape[1], None
        if documents:
            n, places = documents.shape[1], documents.places
        elif mask is not None:
            places = token_places(x, mask)
        if self.max_len and n > self.max_len:
            raise UserError(f"{n} tokens at once: the model was built for {self.max_len} tokens")
        x, back_position = position_layer(params, x, self.positions, self.offset, places)
        if mask is not None:
            x = xp.where(mask[:, :, None], x, 0)
        backs = []
        for i, block in enumerate(self.blocks):
            mix = partial(documents.mix, block.mixer) if documents else None
            keep = keeps[i] if keeps else None
            x, back_block = block(params["blocks"][str(i)], x, mask, keep, mix)
            backs.append(back_block)
        if self.norm:
            x, back_norm = norm_layer(params["norm"], x)

        def back(dx, grads):
            if self.norm:
                dx, dnorm = back_norm(dx)
                add(grads["norm"], dnorm)
            for i in reversed(range(len(backs))):
                dx, dparams = backs[i](dx)
                add(grads["blocks"][str(i)], dparams)
            if mask is not None:
                dx = xp.where(mask[:, :, None], dx, 0)
            dx, dpositions = back_position(dx)
            add(grads, dpositions)
            return dx

        return x, back
