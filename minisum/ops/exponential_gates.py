"""A memory with an exponential input gate, normalised by the sum of what the gates let in."""

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.products import token, transposed

EPS = 1e-6
# The largest exponent of the floor e^-m: e^80 does not overflow in float32.
LARGEST = 80.0


@has_fast_forms
def mlstm(q, k, v, log_forget, log_input, state=None):
    """y_t = q_t @ N_t / max(|q_t·n_t|, 1), [N, n]_t = f_t [N, n]_{t-1} + i_t k_t.T @ [v_t, 1].

    q, k (B, H, n, K), v (B, H, n, V), log_forget = log f <= 0 and log_input = log i (B, H, n, 1),
    state None or (S (B, H, K, V + 1), m (B, H, 1, 1)) -> y (B, H, n, V) and the state after the
    last token. Time O(n K V). Beck et al. 2024, "xLSTM", equations 19 to 27 and appendix A.2.

    In units of e^m, m_t = max(log f_t + m_{t-1}, log i_t), -∞ before the first token: S = [N, n]
    e^-m with f' = f e^{m_{t-1} - m_t} and i' = i e^{-m_t}, both at most 1. With [s, δ] = q_t @ S_t,
    y = s / D, D = max(|δ|, e^{-m_t}) + 1e-6. But for the 1e-6 of the released code m cancels.

    Backward, with c = -(dy·y) / D and dS carried from the end: dS gains q_t.T @ r, r = [dy / D,
    c sign δ], its last entry 0 where e^{-m_t} is the larger; dq_t = r @ S_t.T; with w = [v_t, 1] @
    dS.T, dk_t = i' w; dv_t = i' k_t @ dS without its last entry; dlog_input_t = i' w·k_t and
    dlog_forget_t = f' Σ dS ⊙ S_{t-1}; dS is multiplied by f'. m_t gets 1e-6 c, which goes to the
    larger of the two that it is the maximum of. The state is for generation: it has no gradient.

    Saved: q, k, v, log_forget, log_input, y, S and m of every token.
    """
    xp, n = array_module(q), q.shape[2]
    values = with_ones(v)
    if state is None:
        S = xp.zeros((*q.shape[:2], q.shape[-1], values.shape[-1]), q.dtype)
        state = S, xp.full_like(log_input[:, :, :1], -xp.inf)
    states, y = [state], xp.empty_like(v)

    def gates(t, m):
        kept = token(log_forget, t) + states[t][1]
        return xp.exp(kept - m), xp.exp(token(log_input, t) - m)

    for t in range(n):
        S, m = states[t]
        m = xp.maximum(token(log_forget, t) + m, token(log_input, t))
        f, i = gates(t, m)
        S = f * S + i * transposed(token(k, t)) @ token(values, t)
        states.append((S, m))
        s, _, D = reading(token(q, t) @ S, m)
        token(y, t)[...] = s / D

    def back(gradients):
        dy, _ = gradients
        dq, dk, dv, df, di = (xp.empty_like(x) for x in (q, k, v, log_forget, log_input))
        dS, dm = xp.zeros_like(states[0][0]), xp.zeros_like(states[0][1])
        for t in reversed(range(n)):
            (before, m_before), (S, m) = states[t : t + 2]
            f, i = gates(t, m)
            _, sign, D = reading(token(q, t) @ S, m)
            dreading, c = back_reading(token(dy, t), token(y, t), sign, D)
            dS = dS + transposed(token(q, t)) @ dreading
            token(dq, t)[...] = dreading @ transposed(S)
            w = token(values, t) @ transposed(dS)
            token(dk, t)[...] = i * w
            token(dv, t)[...] = i * (token(k, t) @ dS)[..., :-1]
            dm = dm + EPS * c
            won = token(log_input, t) >= token(log_forget, t) + m_before
            token(di, t)[...] = i * (w * token(k, t)).sum(axis=-1, keepdims=True) + won * dm
            token(df, t)[...] = f * (dS * before).sum(axis=(-2, -1), keepdims=True) + ~won * dm
            dm, dS = ~won * dm, f * dS
        return dq, dk, dv, df, di, None

    return (y, states[-1]), back


def with_ones(v):
    """[v, 1]."""
    xp = array_module(v)
    return xp.concatenate([v, xp.ones((*v.shape[:-1], 1), v.dtype)], axis=-1)


def reading(sums, m):
    """[s, δ], m -> s, the sign of δ (0 where the floor e^-m is the larger), D."""
    xp, delta = array_module(sums), sums[..., -1:]
    floor = xp.exp(xp.minimum(-m, LARGEST))
    size = xp.abs(delta)
    return sums[..., :-1], xp.sign(delta) * (size > floor), xp.maximum(size, floor) + EPS


def back_reading(dy, y, sign, D):
    """The gradients of [s, δ], and c."""
    top = dy / D
    c = -(top * y).sum(axis=-1, keepdims=True)
    return array_module(dy).concatenate([top, c * sign], axis=-1), c
