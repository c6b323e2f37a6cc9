"""Recurrences of one number a channel, in chunks that walk side by side.

A text is cut into about √n chunks of √n tokens. All chunks walk their tokens side by side, each
from zero; then the chunks' ends are chained, and every token gets what came before its chunk, faded
by the decays since: two loops of √n steps instead of one of n.
"""

import math

from minisum.backend import add_into, array_module
from minisum.fast import one_real_type
from minisum.fast.chunks import join, split
from minisum.ops.running import sum_to
from minisum.ops.softmax_pooling import first_state, only_real_keys


def decayed_sum(u, log_decay, state=None):
    """`minisum.ops.decayed_sum` in chunks; its gradient is the same scan from the other end.

    Saved: a, h up to the end of the last chunk, state, and the shape of log_decay.
    """
    if not one_real_type(u, log_decay, state):
        return NotImplemented
    xp, shape = array_module(u), log_decay.shape
    a = xp.broadcast_to(xp.exp(log_decay), u.shape)
    start = xp.zeros_like(u[:, 0]) if state is None else state
    h = _scan(a, u, start)

    def back(gradients):
        dh, dlast = gradients
        later = xp.concatenate([a[:, 1:], xp.ones_like(a[:, :1])], axis=1)
        dlast = xp.zeros_like(start) if dlast is None else dlast
        G = _scan(later[:, ::-1], dh[:, ::-1], dlast)[:, ::-1]
        before = xp.concatenate([start[:, None], h[:, :-1]], axis=1)
        dlog_decay = sum_to(a * G * before, shape)
        return G, dlog_decay, None if state is None else a[:, 0] * G[:, 0]

    return (h, h[:, -1]), back


def running_softmax_pool(k, v, mask=None, state=None):
    """`minisum.ops.running_softmax_pool`: numerator and denominator side by side in one scan.

    Saved: v, y, Z, e^{k - M}, and what the decayed sum saves.
    """
    if not one_real_type(k, v):
        return NotImplemented
    xp, d = array_module(k), k.shape[-1]
    top, *sums = first_state(k) if state is None else state
    k, v = only_real_keys(k, v, mask)
    M = running_maximum(k, top)
    before = xp.concatenate([top[:, None], M[:, :-1]], axis=1)
    weight = xp.exp(k - M)
    if mask is not None:
        weight = xp.where(mask[:, :, None], weight, 0)
    both = xp.concatenate([weight * v, weight], axis=-1)
    fade = xp.concatenate([before - M, before - M], axis=-1)
    (sums, last), back_sums = decayed_sum(both, fade, xp.concatenate(sums, axis=-1))
    Z = xp.where(sums[..., d:] == 0, 1, sums[..., d:])
    y = sums[..., :d] / Z

    def back(gradients):
        dy, _ = gradients
        dN = dy / Z
        dsums, *_ = back_sums((xp.concatenate([dN, -dN * y], axis=-1), None))
        P, R = dsums[..., :d], dsums[..., d:]
        return weight * (v * P + R), weight * P, None, None

    return (y, (M[:, -1], last[:, :d], last[:, d:])), back


def _chunk(n):
    """About √n tokens, an odd number: chunks a power of two apart would share few places of the
    cache among them all."""
    return (math.isqrt(n - 1) + 1) | 1


def _scan(a, u, start):
    """h_t = a_t h_{t-1} + u_t.   a, u (B, n, d), start (B, d) -> h (B, n, d)"""
    xp, n = array_module(u), u.shape[1]
    a, h = (split(x, _chunk(n)) for x in (a, u))
    h, kept = h.copy(), a.copy()
    for i in range(1, h.shape[2]):
        add_into(h[:, :, i], a[:, :, i] * h[:, :, i - 1])
        xp.multiply(kept[:, :, i], kept[:, :, i - 1], out=kept[:, :, i])
    for c in range(h.shape[1]):
        add_into(h[:, c], kept[:, c] * start[:, None])
        start = h[:, c, -1]
    return join(h, n)


def running_maximum(k, start):
    """max of start and k up to each token.   k (B, n, d), start (B, d) -> (B, n, d)"""
    maximum, n = array_module(k).maximum, k.shape[1]
    top = split(k, _chunk(n)).copy()
    for i in range(1, top.shape[2]):
        top[:, :, i] = maximum(top[:, :, i], top[:, :, i - 1])
    for c in range(top.shape[1]):
        top[:, c] = maximum(top[:, c], start[:, None])
        start = top[:, c, -1]
    return join(top, n)
