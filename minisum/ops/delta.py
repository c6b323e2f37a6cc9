"""The delta rule: a memory that is corrected, not only added to."""

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.products import forget, token, transposed
from minisum.ops.running import sum_to


@has_fast_forms
def delta_rule(q, k, v, beta, log_decay=None, state=None):
    """S̃_t = a_t S_{t-1}; u_t = β_t (v_t - k_t @ S̃_t); S_t = S̃_t + k_t.T @ u_t; y_t = q_t @ S_t.

    The memory S is asked what it holds under k_t, and corrected by a fraction β_t of the error.
    q, k (B, H, n, K), v (B, H, n, V), beta (B, H, n, 1) in [0, 1], log_decay = log a <= 0 like
    beta or None for a = 1, state S_0 (B, H, K, V) or None for 0 -> y (B, H, n, V) and S_n. Keys
    must not be longer than 1, or the memory may grow without bound. Time O(n K V).
    Yang et al. 2024, "Parallelizing linear transformers with the delta rule", section 3; with
    decay, Yang, Kautz and Hatamizadeh 2025, "Gated delta networks", section 3.

    Let dS be the gradient of the state, carried from the last token to the first. At token t it
    gains what y_t read, q_t.T @ dy_t, and dq_t = dy_t @ S_t.T. The correction gets du = k_t @ dS,
    so dbeta_t = Σ_V du ⊙ (v_t - k_t @ S̃_t) and dv_t = β_t du. A key plays two parts, it writes
    and it asks: dk_t = u_t @ dS.T - dv_t @ S̃_t.T. S̃_t, which was also asked, gets
    dS̃ = dS - k_t.T @ dv_t; then dlog_decay_t = Σ dS̃ ⊙ S̃_t, and S_{t-1} is handed a_t dS̃, which
    before the first token is dstate.

    Saved: q, k, v, beta, log_decay, S̃ of every token.
    """
    xp, n = array_module(q), q.shape[2]
    S = xp.zeros((*q.shape[:2], k.shape[-1], v.shape[-1]), q.dtype) if state is None else state
    faded, y = [], xp.empty_like(v)
    for t in range(n):
        q_t, k_t, v_t, beta_t, decay_t = (token(x, t) for x in (q, k, v, beta, log_decay))
        faded.append(forget(decay_t, S))
        S = faded[t] + transposed(k_t) @ (beta_t * (v_t - k_t @ faded[t]))
        token(y, t)[...] = q_t @ S

    def back(gradients):
        dy, dS = gradients
        dS = xp.zeros_like(faded[0]) if dS is None else dS
        dq, dk, dv, dbeta, ddecay = (xp.empty_like(x) for x in (q, k, v, beta, beta))
        for t in reversed(range(n)):
            q_t, k_t, v_t, beta_t, dy_t = (token(x, t) for x in (q, k, v, beta, dy))
            error = v_t - k_t @ faded[t]
            after = faded[t] + transposed(k_t) @ (beta_t * error)
            token(dq, t)[...] = dy_t @ transposed(after)
            dS = dS + transposed(q_t) @ dy_t
            du = k_t @ dS
            token(dbeta, t)[...] = (du * error).sum(axis=-1, keepdims=True)
            token(dv, t)[...] = beta_t * du
            dwrites, dasks = beta_t * error @ transposed(dS), -beta_t * du @ transposed(faded[t])
            token(dk, t)[...] = dwrites + dasks
            dS = dS - transposed(k_t) @ (beta_t * du)
            if log_decay is not None:
                ddecay[:, :, t, 0] = (dS * faded[t]).sum(axis=(-2, -1))
                dS = forget(token(log_decay, t), dS)
        dlog_decay = None if log_decay is None else sum_to(ddecay, log_decay.shape)
        return dq, dk, dv, dbeta, dlog_decay, None if state is None else dS

    return (y, S), back


def l2_norm(x, eps=1e-6):
    """y = r x, r = 1/√(x·x + eps): a vector of length (almost) one.   x (..., d)

    What points along x cannot change its length: dx = r dy - r³ (dy·x) x.

    Saved: x, r (one number a vector).
    """
    xp = array_module(x)
    r = 1 / xp.sqrt((x * x).sum(axis=-1, keepdims=True) + eps)

    def back(dy):
        return r * dy - x * r**3 * (dy * x).sum(axis=-1, keepdims=True)

    return x * r, back
