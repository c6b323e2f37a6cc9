"""Recurrences with decay in both directions: forwards, plus backwards, less what both count.

What token i reads of token j is multiplied by the decays of j and of the tokens between the two,
but not by the decay of i, the reader. With M_ij for this factor, M_ii = 1:

    j < i    M_ij = exp(log_decay_j + ... + log_decay_{i-1})
    j > i    M_ij = exp(log_decay_j + ... + log_decay_{i+1})

A causal recurrence counts the decay of the reader i and not that of j. So in each direction the
decays are shifted by one token. Afzal et al. 2025, "Linear attention for efficient bidirectional
sequence modeling" (LION), section 3.
"""

from minisum.backend import array_module
from minisum.ops.products import causal_product
from minisum.ops.running import decayed_sum


def both_ways_product(q, k, v, log_decay):
    """y_i = Σ_j M_ij (q_i·k_j) v_j, M_ij per head or per key channel (then inside the product).

    q, k (B, H, n, K), v (B, H, n, V), log_decay <= 0 one a head (.., n, 1) or one a key channel
    (.., n, K); leading axes may be 1 -> y (B, H, n, V). Time O(n K V).

    dq, dk, dv and dlog_decay are those of both directions, added in the text's order, less those of
    the diagonal (q_i·k_i) v_i, which both count: with g = dy·v, subtract g k from dq, g q from dk
    and (q·k) dy from dv.

    Saved: q, k, v, and what the two products save.
    """
    y, back_both = _there_and_back(causal_product, (q, k, v), log_decay, 2)
    diagonal = (q * k).sum(axis=-1, keepdims=True)

    def back(dy):
        dq, dk, dv, dlog_decay = back_both(dy)
        g = (dy * v).sum(axis=-1, keepdims=True)
        return dq - g * k, dk - g * q, dv - diagonal * dy, dlog_decay

    return y - diagonal * v, back


def both_ways_sum(u, log_decay):
    """y_i = Σ_j M_ij ⊙ u_j.   u (B, n, d), log_decay <= 0 of that shape (axes may be 1) -> y like u

    du and dlog_decay are those of both directions, added; dy is subtracted from du, since both
    sums contain u_i.

    Saved: what the two sums save.
    """
    y, back_both = _there_and_back(decayed_sum, (u,), log_decay, 1)

    def back(dy):
        du, dlog_decay = back_both(dy)
        return du - dy, dlog_decay

    return y - u, back


def _there_and_back(recurrence, sequences, log_decay, axis):
    """The sum of the recurrence read from both ends; tokens along `axis`."""
    xp = array_module(log_decay)

    def turn(x):
        return xp.flip(x, axis)

    ahead = (slice(None),) * axis
    first, last = (*ahead, slice(0, 1)), (*ahead, slice(-1, None))
    without_first, without_last = (*ahead, slice(1, None)), (*ahead, slice(0, -1))

    def late(a):
        """Shifted one token later, with no decay at the first."""
        return xp.concatenate([xp.zeros_like(a[first]), a[without_last]], axis=axis)

    def early(da):
        """The adjoint of `late`."""
        return xp.concatenate([da[without_first], xp.zeros_like(da[last])], axis=axis)

    (there, _), back_there = recurrence(*sequences, late(log_decay))
    (back_again, _), back_back = recurrence(*map(turn, sequences), late(turn(log_decay)))

    def back(dy):
        *d_there, dlog_there, _ = back_there((dy, None))
        *d_back, dlog_back, _ = back_back((turn(dy), None))
        found = [a + turn(b) for a, b in zip(d_there, d_back, strict=True)]
        return *found, early(dlog_there) + turn(early(dlog_back))

    return there + turn(back_again), back
