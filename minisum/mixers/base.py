"""What all mixers share: their sizes, and the refusal of sizes that cannot be."""

from minisum.errors import UserError


class Mixer:
    """Base of the mixers. Subclasses define `init`, `__call__` and, if causal, `step`.

    width: d. heads: H, a divisor of width. max_len: the longest sequence, for mixers whose
    parameters or constants depend on it. causal: whether token t may see only tokens s <= t.
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
