"""`wkv` as one decayed sum of numerators and denominators side by side."""

from minisum.backend import array_module
from minisum.fast import one_real_type
from minisum.fast.scans import decayed_sum, running_maximum
from minisum.ops.softmax_pooling import first_state


def wkv(k, v, w, u, state=None):
    """`minisum.ops.wkv` in loops of √n steps, with M_t = t w + the running maximum of k_s - s w.

    Saved: v, y, of every token 1 / z, past, now and e, and what the decayed sum saves.
    """
    if not one_real_type(k, v, w, u):
        return NotImplemented
    xp, (_, n, d) = array_module(k), k.shape
    start, *sums = first_state(k) if state is None else state
    fallen = xp.arange(1, n + 1, dtype=k.dtype)[:, None] * w
    M = running_maximum(k - fallen, start) + fallen
    M_before = xp.concatenate([start[:, None], M[:, :-1]], axis=1)
    e = xp.exp(k - M)
    R = xp.maximum(M_before, u + k)
    past, now = xp.exp(M_before - R), xp.exp(u + k - R)
    first = xp.concatenate(sums, axis=-1)
    written = xp.concatenate([e * v, e], axis=-1)
    log_f = w + M_before - M
    (sums, last), back_sums = decayed_sum(written, xp.concatenate([log_f, log_f], axis=-1), first)
    before = xp.concatenate([first[:, None], sums[:, :-1]], axis=1)
    inverse = 1 / (past * before[..., d:] + now)
    y = (past * before[..., :d] + now * v) * inverse

    def back(gradients):
        dy, _ = gradients
        dn = dy * inverse
        dz = -dn * y
        dbefore = xp.concatenate([past * dn, past * dz], axis=-1)
        dsums = xp.concatenate([dbefore[:, 1:], xp.zeros_like(dbefore[:, :1])], axis=1)
        dwritten, dlog_f, _ = back_sums((dsums, None))
        dN, dZ = dwritten[..., :d], dwritten[..., d:]
        bonus = now * (dn * v + dz)
        dk = bonus + e * (dN * v + dZ)
        dw = (dlog_f[..., :d] + dlog_f[..., d:]).sum(axis=(0, 1))
        return dk, now * dn + e * dN, dw, bonus.sum(axis=(0, 1)), None

    return (y, (M[:, -1], last[:, :d], last[:, d:])), back
