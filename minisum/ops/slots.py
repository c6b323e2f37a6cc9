"""A key-value memory with decays on its columns, the slots, instead of its rows."""

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.products import token, transposed
from minisum.ops.running import sum_to


@has_fast_forms
def slot_product(q, k, v, log_decay, state=None):
    """y_t = q_t @ S_t, S_t = S_{t-1} ⊙ a_t + k_t.T @ v_t, a = exp(log_decay) <= 1 for each slot.

    q, k (B, H, n, K), v (B, H, n, V), log_decay <= 0 like v (leading axes may be 1), state S_0
    (B, H, K, V) or None for 0 -> y (B, H, n, V) and S_n. `causal_product` with the decays on values
    instead of keys. Time O(n K V). Zhang et al. 2024, "Gated slot attention", equation 7.

    Let dS be the gradient of the state, carried from the last token to the first. At token t it
    gains q_t.T @ dy_t; then dq_t = dy_t @ S_t.T, dk_t = v_t @ dS.T, dv_t = k_t @ dS; dlog_decay_t
    sums dS ⊙ S_{t-1} ⊙ a_t over K; S_{t-1} receives dS ⊙ a_t; before the first token it is dstate.

    Saved: q, k, v, log_decay, the state after every token.
    """
    xp, n = array_module(q), q.shape[2]
    S = xp.zeros((*q.shape[:2], k.shape[-1], v.shape[-1]), q.dtype) if state is None else state
    states, y = [S], xp.empty_like(v)
    for t in range(n):
        q_t, k_t, v_t, decay_t = (token(x, t) for x in (q, k, v, log_decay))
        S = S * xp.exp(decay_t) + transposed(k_t) @ v_t
        states.append(S)
        token(y, t)[...] = q_t @ S

    def back(gradients):
        dy, dS = gradients
        dS = xp.zeros_like(S) if dS is None else dS
        dq, dk, dv, da = (xp.empty_like(x) for x in (q, k, v, v))
        for t in reversed(range(n)):
            q_t, k_t, v_t, decay_t, dy_t = (token(x, t) for x in (q, k, v, log_decay, dy))
            dS = dS + transposed(q_t) @ dy_t
            token(dq, t)[...] = dy_t @ transposed(states[t + 1])
            token(dk, t)[...] = v_t @ transposed(dS)
            token(dv, t)[...] = k_t @ dS
            dS = dS * xp.exp(decay_t)
            da[:, :, t] = (dS * states[t]).sum(axis=-2)
        return dq, dk, dv, sum_to(da, log_decay.shape), None if state is None else dS

    return (y, S), back
