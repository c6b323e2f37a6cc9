"""What all mixers share: sizes, masks, the step, and the linear layers around the mixing."""

from minisum.backend import array_module
from minisum.errors import UserError
from minisum.layers import linear_layer
from minisum.ops import (
    both_ways_product,
    both_ways_sum,
    causal_product,
    decayed_sum,
    merge_heads,
    rms_norm,
    silu,
    split_heads,
)


class Mixer:
    """Base of the mixers. Subclasses define `init`, `mix` and, if causal, `state_size`.

    width: d. heads: H, a divisor of width, of no effect where a mixer treats each channel by
    itself. max_len: the longest sequence, for mixers whose parameters or constants depend on it.
    causal: whether token t may see only tokens s <= t.
    """

    can_be_causal = True
    can_be_bidirectional = True

    def __init__(self, width, heads=1, max_len=512, causal=False):
        name = type(self).__name__
        if width < 1 or heads < 1 or width % heads:
            raise UserError(f"{name}: {heads} heads do not divide the width {width}")
        if causal and not self.can_be_causal:
            raise UserError(f"{name} cannot be causal: it mixes all positions at once")
        if not causal and not self.can_be_bidirectional:
            raise UserError(f"{name} is causal by construction and cannot look ahead")
        self.width, self.heads, self.max_len, self.causal = width, heads, max_len, causal

    def init(self, rng):
        """Initial parameters: nested dict of host arrays."""
        raise NotImplementedError

    def mix(self, params, x, mask, state):
        """The mixing itself: (y, state after x), back; back(dy) -> dx, dparams.

        x is zero at padding, and what y holds there is not read. mask (B, n) or None; state None
        at the start of a text. Padding must leave the state and the real tokens' y alone.
        """
        raise NotImplementedError

    def __call__(self, params, x, mask=None, **noise):
        """x (B, n, d), mask (B, n) bool, True at real tokens, or None -> y (B, n, d), back.

        back(dy) -> dx and dparams, a dict like params. At padding y and dx are zero and dy is not
        read, whatever numbers (or NaN) stand there. noise: what a mixer with dropout needs while
        training.
        """
        if not x.size:
            return x, lambda dy: (x, zeros_like(params))
        if mask is None:
            (y, _), back_mix = self.mix(params, x, None, None, **noise)
            return y, back_mix
        where = array_module(x).where
        real = mask[:, :, None]
        (y, _), back_mix = self.mix(params, where(real, x, 0), mask, None, **noise)

        def back(dy):
            dx, dparams = back_mix(where(real, dy, 0))
            return where(real, dx, 0), dparams

        return where(real, y, 0), back

    def step(self, params, x, state=None):
        """Read the next tokens x (B, n, d), any number -> y (B, n, d), the state after them.

        A text read in parts gives the y of the whole text. The state at its start is None.
        """
        if not self.causal:
            name = type(self).__name__
            raise UserError(f"{name} reads step by step only if built with causal=True")
        if not x.shape[1]:
            return x, state
        (y, state), _ = self.mix(params, x, None, state)
        return y, _own_memory(state)

    def state_size(self, tokens=None):
        """Numbers that `step` carries for each sequence, after `tokens` tokens where it matters."""
        raise NotImplementedError

    def check_length(self, tokens):
        if tokens > self.max_len:
            name = type(self).__name__
            raise UserError(f"{name} was built for {self.max_len} tokens and got {tokens}")


class Packed(Mixer):
    """Base of mixers that depend on token positions, as windows and convolutions do.

    `mix` gets every text with its real tokens first and its padding last, so that padding on the
    left or inside a text changes nothing; a causal `mix` may ignore the mask.
    """

    def __call__(self, params, x, mask=None):
        if mask is None:
            return super().__call__(params, x)
        xp = array_module(x)
        B, n, _ = x.shape
        real, padding = xp.cumsum(mask, axis=1), xp.cumsum(~mask, axis=1)
        count = real[:, n - 1 :]  # (B, 1)
        to = xp.arange(B)[:, None], xp.where(mask, real, count + padding) - 1

        def pack(x):
            packed = xp.empty_like(x)
            packed[to] = x
            return packed

        y, back_mix = super().__call__(params, pack(x), xp.arange(n) < count)

        def back(dy):
            dx, dparams = back_mix(pack(dy))
            return dx[to], dparams

        return y[to], back


def _own_memory(state):
    """The state, copied where it is a view, which would keep a whole prompt in memory."""
    if isinstance(state, tuple):
        return tuple(_own_memory(part) for part in state)
    base = getattr(state, "base", None)
    return state.copy() if base is not None and base.nbytes > state.nbytes else state


def zeros_like(params):
    """Zeros in a nested dict like params."""
    return {
        name: zeros_like(a) if isinstance(a, dict) else array_module(a).zeros_like(a)
        for name, a in params.items()
    }


def to_heads(params, x, heads):
    """x (B, n, d) -> the heads (B, H, n, h) of its linear layer; back(dheads) -> dx, dparams."""
    flat, back_linear = linear_layer(params, x)
    y, back_split = split_heads(flat, heads)
    return y, lambda dy: back_linear(back_split(dy))


def from_heads(params, x):
    """x (B, H, n, h) -> the linear layer of its joined heads (B, n, d); back(dy) -> dx, dparams."""
    joined, back_merge = merge_heads(x)
    y, back_linear = linear_layer(params, joined)

    def back(dy):
        djoined, dparams = back_linear(dy)
        return back_merge(djoined), dparams

    return y, back


def normed_layer(params, x, layer=linear_layer):
    """y = RMSNorm(x) @ Wo.T by the layers norm and o; back(dy) -> dx, and their gradients.

    x (B, n, e) -> y (B, n, d). layer: `from_heads` for x (B, H, n, h) and a norm in each head.
    """
    normed, back_norm = rms_norm(x, params["norm"]["gain"], 1e-5)
    y, back_o = layer(params["o"], normed)

    def back(dy):
        dnormed, dparams_o = back_o(dy)
        dx, dgain = back_norm(dnormed)
        return dx, {"norm": {"gain": dgain}, "o": dparams_o}

    return y, back


def gated_from_heads(params, o, x, heads):
    """y = (RMSNorm(o) ⊙ SiLU(x @ Wgate.T)) @ Wo.T: what was read from a memory, through a gate.

    o (B, H, n, h), the norm taken in each head, with one gain for all -> y (B, n, d); back(dy) ->
    do, dx, and the gradients of the layers gate, norm and o. Product rule, with z = x @ Wgate.T
    and g = dy @ Wo: g ⊙ SiLU(z) goes to the norm, dz = g ⊙ RMSNorm(o) ⊙ SiLU'(z).
    """
    normed, back_norm = rms_norm(o, params["norm"]["gain"], 1e-5)
    z, back_gate = to_heads(params["gate"], x, heads)
    gate, back_silu = silu(z)
    y, back_o = from_heads(params["o"], normed * gate)

    def back(dy):
        dgated, dparams_o = back_o(dy)
        do, dgain = back_norm(dgated * gate)
        dx, dgate = back_gate(back_silu(dgated * normed))
        return do, dx, {"gate": dgate, "norm": {"gain": dgain}, "o": dparams_o}

    return y, back


def decayed(causal, *sequences, state=None):
    """(y, state) of a recurrence whose decay is the last of the sequences; back((dy, None)).

    A sum of u, or a product of q, k and v. Causal, or in both directions and then without a state.
    """
    product = len(sequences) == 4
    if causal:
        return (causal_product if product else decayed_sum)(*sequences, state)
    y, back = (both_ways_product if product else both_ways_sum)(*sequences)
    return (y, None), lambda gradients: (*back(gradients[0]), None)


def join(**branches):
    """(dx, dparams) of layers that read the same x: the sum of their dx, their dparams by name."""
    dx, *others = (dx for dx, _ in branches.values())
    return sum(others, dx), {name: dparams for name, (_, dparams) in branches.items()}


def keep_real(x, mask):
    """Zeros at padding.   x (B, H, n, ...), mask (B, n) or None. Its gradient is masked alike."""
    return x if mask is None else array_module(x).where(mask[:, None, :, None], x, 0)
