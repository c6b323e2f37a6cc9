"""`selective_scan` a piece of the text at a time: what lies between two pieces is made again."""

import numpy as np

from minisum.backend import array_module
from minisum.fast import one_real_type
from minisum.fast.cuda.recording import matmul
from minisum.ops.running import decayed_sum

# How many numbers the states of a piece may be: what stays near a core, and what keeps a GPU busy.
# Fewer tokens than LEAST are no piece.
CACHED, BUSY, LEAST = 1 << 18, 1 << 26, 16


def selective_scan(u, delta, A, B, C, state=None):
    """`minisum.ops.selective_scan` in memory n (2e + 2N + e N / T) with pieces of T tokens.

    In a piece the states are a `decayed_sum` of e N channels. Backward, from the last piece on,
    each is computed again from the state before it. T is 16 or, if the states are small, more.

    Saved: u, delta, A, B, C, the state before every piece.
    """
    if not one_real_type(u, delta, A, B, C, state):
        return NotImplemented
    xp, n = array_module(u), u.shape[1]
    T = max(LEAST, (CACHED if xp is np else BUSY) // max(1, len(u) * A.size))
    pieces = [slice(start, min(start + T, n)) for start in range(0, n, T)]
    h = xp.zeros((len(u), *A.shape), u.dtype) if state is None else state
    before, y = [], xp.empty_like(u)
    for piece in pieces:
        before.append(h)
        (y[:, piece], h), _ = _scan(u[:, piece], delta[:, piece], A, B[:, piece], C[:, piece], h)
    shape = h.shape

    def back(gradients):
        dy, dh = gradients
        dh = xp.zeros(shape, u.dtype) if dh is None else dh
        du, ddelta, dB, dC = (xp.empty_like(a) for a in (u, delta, B, C))
        dA = xp.zeros_like(A)
        for piece, start in zip(reversed(pieces), reversed(before), strict=True):
            tokens = (a[:, piece] for a in (u, delta, B, C))
            _, back_scan = _scan(next(tokens), next(tokens), A, *tokens, start)
            found = back_scan(dy[:, piece], dh)
            du[:, piece], ddelta[:, piece], dA_piece, dB[:, piece], dC[:, piece], dh = found
            dA += dA_piece
        return du, ddelta, dA, dB, dC, None if state is None else dh

    return (y, h), back


def _scan(u, delta, A, B, C, state):
    """One piece."""
    (texts, n, e), N = u.shape, A.shape[-1]
    inputs = delta * u
    log_decay = (delta[..., None] * A).reshape(texts, n, e * N)
    written = (inputs[..., None] * B[:, :, None]).reshape(texts, n, e * N)
    (h, last), back_sum = decayed_sum(written, log_decay, state.reshape(texts, e * N))
    h = h.reshape(texts, n, e, N)

    def back(dy, dlast):
        dread = (dy[..., None] * C[:, :, None]).reshape(texts, n, e * N)
        dwritten, dlog, dstate = back_sum((dread, dlast.reshape(texts, e * N)))
        dwritten, dlog = dwritten.reshape(h.shape), dlog.reshape(h.shape)
        w = matmul(dwritten, B[..., None])[..., 0]
        ddelta = (dlog * A).sum(axis=-1) + w * u
        dA = (dlog * delta[..., None]).sum(axis=(0, 1))
        dB = matmul(inputs[:, :, None], dwritten)[:, :, 0]
        dC = matmul(dy[:, :, None], h)[:, :, 0]
        return w * delta, ddelta, dA, dB, dC, dstate.reshape(state.shape)

    y = matmul(h, C[..., None])[..., 0]
    # A copy: the view of its last state would keep all of the piece alive.
    return (y, last.reshape(state.shape).copy()), back
