"""What all mixers share: sizes, masks, the step, and the linear maps around the mixing."""

from minisum import init
from minisum.backend import array_module
from minisum.errors import UserError
from minisum.ops import linear, merge_heads, rms_norm, silu, split_heads


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
        """First values of the parameters: dict of name -> host array."""
        raise NotImplementedError

    def mix(self, params, x, mask, state):
        """The mixing itself: (y, state after x), back; back(dy) -> dx, dparams.

        x is zero at padding, and what y holds there is not read. mask (B, n) or None; state None
        at the start of a text. Padding must leave the state and the real tokens' y alone.
        """
        raise NotImplementedError

    def __call__(self, params, x, mask=None):
        """x (B, n, d), mask (B, n) bool, True at real tokens, or None -> y (B, n, d), back.

        back(dy) -> dx, and a dict with the gradient of every parameter. At padding y and dx are
        zero and dy is not read, whatever numbers (or NaN) stand there.
        """
        if not x.size:
            zeros = array_module(x).zeros_like
            return x, lambda dy: (x, {name: zeros(a) for name, a in params.items()})
        if mask is None:
            (y, _), back_mix = self.mix(params, x, None, None)
            return y, back_mix
        where = array_module(x).where
        real = mask[:, :, None]
        (y, _), back_mix = self.mix(params, where(real, x, 0), mask, None)

        def back(dy):
            dx, dparams = back_mix(where(real, dy, 0))
            return where(real, dx, 0), dparams

        return where(real, y, 0), back

    def step(self, params, x, state=None):
        """Read the next tokens x (B, n, d), any number -> y (B, n, d), the state after them.

        Pieces of a text read in turn give the y of the whole text. None is the state at its start.
        """
        if not self.causal:
            name = type(self).__name__
            raise UserError(f"{name} reads step by step only if built with causal=True")
        if not x.shape[1]:
            return x, state
        (y, state), _ = self.mix(params, x, None, state)
        return y, _without_the_rest(state)

    def state_size(self, tokens=None):
        """Numbers that `step` carries for each sequence, after `tokens` tokens where it matters."""
        raise NotImplementedError

    def positions(self, x, mask, start=0):
        """Each token's place among the real ones: (1, n), or (B, n) with a mask; padding's is >= 0.

        Counted so, a text has the same positions alone, left-padded and right-padded.
        """
        xp = array_module(x)
        if mask is None:
            return start + xp.arange(x.shape[1])[None]
        return xp.maximum(xp.cumsum(mask, axis=1) - 1, 0)

    def check_length(self, tokens):
        if tokens > self.max_len:
            name = type(self).__name__
            raise UserError(f"{name} was built for {self.max_len} tokens and got {tokens}")


def _without_the_rest(state):
    """A state of its own: a view of its last tokens would keep all tokens of a prompt alive."""
    if isinstance(state, tuple):
        return tuple(_without_the_rest(part) for part in state)
    base = getattr(state, "base", None)
    return state.copy() if base is not None and base.nbytes > state.nbytes else state


def uniform_linears(rng, names, width):
    """W{name} and b{name}, both uniform within ±1/√width, PyTorch's choice for a linear layer."""
    arrays = {}
    for name in names:
        arrays[f"W{name}"] = init.fan_in_uniform(rng, width, width)
        arrays[f"b{name}"] = init.fan_in_uniform(rng, 1, width)[0]
    return arrays


def normal_linears(rng, shapes):
    """W{name} from N(0, 0.02²), no biases: the choice of the language-model papers."""
    return {f"W{name}": rng.normal(0.0, 0.02, shape) for name, shape in shapes.items()}


def affine(params, x, name):
    """y = x @ W{name}.T + b{name} (if params has one); back(dy) -> dx, {name: gradient}."""
    names = [f"W{name}"] + [f"b{name}"] * (f"b{name}" in params)
    y, back_linear = linear(x, *(params[key] for key in names))

    def back(dy):
        dx, *gradients = back_linear(dy)
        return dx, dict(zip(names, gradients, strict=True))

    return y, back


def to_heads(params, x, name, heads):
    """x (B, n, d) -> the heads (B, H, n, h) of its affine map `name`."""
    flat, back_affine = affine(params, x, name)
    y, back_split = split_heads(flat, heads)
    return y, lambda dy: back_affine(back_split(dy))


def from_heads(params, x, name="o"):
    """x (B, H, n, h) -> the affine map `name` of its joined heads, (B, n, d)."""
    joined, back_merge = merge_heads(x)
    y, back_affine = affine(params, joined, name)

    def back(dy):
        djoined, dparams = back_affine(dy)
        return back_merge(djoined), dparams

    return y, back


def gated_from_heads(params, o, x, name, heads):
    """(RMSNorm(o) ⊙ SiLU(x @ W{name}.T)) @ Wo.T: what is read from a memory, let through by a gate.

    o (B, H, n, h), the norm taken in each head, with one gain `norm` for all -> y (B, n, d);
    back(dy) -> do, and (dx, dparams) of the gate, the norm and the output map. Product rule, with
    z = x @ W{name}.T and g = dy @ Wo: g ⊙ SiLU(z) goes to the norm, dz = g ⊙ RMSNorm(o) ⊙ SiLU'(z).
    """
    normed, back_norm = rms_norm(o, params["norm"], 1e-5)
    gate, back_gate = to_heads(params, x, name, heads)
    opened, back_silu = silu(gate)
    y, back_o = from_heads(params, normed * opened)

    def back(dy):
        dgated, dparams_o = back_o(dy)
        do, dnorm = back_norm(dgated * opened)
        dx, dparams = back_gate(back_silu(dgated * normed))
        return do, (dx, dparams | dparams_o | {"norm": dnorm})

    return y, back


def join(*branches):
    """(dx, dparams) of branches that read the same x: their dx add up, their dparams unite."""
    dx, dparams = branches[0]
    for other_dx, other_dparams in branches[1:]:
        dx, dparams = dx + other_dx, dparams | other_dparams
    return dx, dparams


def keep_real(x, mask):
    """Zeros at padding.   x (B, H, n, ...), mask (B, n) or None. Its gradient is masked alike."""
    return x if mask is None else array_module(x).where(mask[:, None, :, None], x, 0)
