"""`mlstm` as a product with decays, in units of the largest gate, which are found before it."""

from minisum.backend import array_module
from minisum.fast import one_real_type
from minisum.fast.chunked_product import causal_product
from minisum.fast.scans import decayed_sum, running_maximum
from minisum.ops.exponential_gates import EPS, back_reading, reading, with_ones
from minisum.ops.running import cumsum


def mlstm(q, k, v, log_forget, log_input, state=None):
    """`minisum.ops.mlstm` with m_t = F_t + the running maximum of log i_s - F_s, F_t = Σ log f.

    Saved: y, i', what the maximum and the floor chose, D, and what the product saves.
    """
    if not one_real_type(q, k, v, log_forget, log_input):
        return NotImplemented
    xp, shape = array_module(q), log_input.shape

    def by_text(x):
        return x.reshape(-1, *x.shape[2:])

    F = cumsum(log_forget, 2)
    S, m = (None, log_input[:, :, :1] - F[:, :, :1]) if state is None else state
    tops = running_maximum(by_text(log_input - F), by_text(m)[:, 0]).reshape(shape) + F
    if state is None:  # nothing fades, and the first gate is the largest
        m = tops[:, :, :1] - log_forget[:, :, :1]
    kept = log_forget + xp.concatenate([m, tops[:, :, :-1]], axis=2)
    won = log_input >= kept
    if state is None:
        won[:, :, 0] = True
    i = xp.exp(log_input - tops)
    written = i * k
    (sums, S), back_product = causal_product(q, written, with_ones(v), kept - tops, S)
    s, sign, D = reading(sums, tops)
    y = s / D

    def back(gradients):
        dy, _ = gradients
        dreading, c = back_reading(dy, y, sign, D)
        dq, dwritten, dvalues, dlog_forget, _ = back_product((dreading, None))
        later = xp.concatenate([won[:, :, 1:], won[:, :, :1]], axis=2)
        stays = xp.where(later, -xp.inf, 0).astype(c.dtype)
        turned = (by_text(xp.flip(x, 2)) for x in (EPS * c, stays))
        (dm, _), _ = decayed_sum(*turned)
        dm = xp.flip(dm.reshape(shape), 2)
        di = (dwritten * written).sum(axis=-1, keepdims=True) + won * dm
        return dq, i * dwritten, dvalues[..., :-1], dlog_forget + ~won * dm, di, None

    return (y, (S, tops[:, :, -1:])), back
