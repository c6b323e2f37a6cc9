"""The delta rule: a memory that is corrected, where linear attention only adds."""

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.products import forget, token, transposed
from minisum.ops.running import sum_to


@has_fast_forms
def delta_rule(q, k, v, beta, log_decay=None, state=None, removal=None):
    """S̃_t = a_t.T ⊙ S_{t-1}; u_t = β_t (v_t - r_t @ S̃_t); S_t = S̃_t + k_t.T @ u_t; y_t = q_t @ S_t.

    The memory S is read with r_t, and the fraction β_t of the error is written under k_t.
    q, k (B, H, n, K), v (B, H, n, V), beta (B, H, n, 1) in [0, 2], log_decay = log a <= 0 one a
    head (.., n, 1) or one a key channel (.., n, K) or None for a = 1, state S_0 (B, H, K, V) or
    None for 0, removal r like k or None for r = k -> y (B, H, n, V) and S_n. Time O(n K V).

    With r = k, a token multiplies the memory by I - β k.T @ k, whose eigenvalue along a key of
    length one is 1 - β: β = 1 erases what was stored under the key, β = 2 changes its sign. With
    β k·k > 2 the memory may grow without bound.
    Yang et al. 2024, "Parallelizing linear transformers with the delta rule", section 3; with
    decay, Yang, Kautz and Hatamizadeh 2025, "Gated delta networks", section 3; one a channel, Kimi
    Team 2025, "Kimi Linear", section 3.

    Let dS be the gradient of the state, carried from the last token to the first. At token t it
    gains q_t.T @ dy_t, and dq_t = dy_t @ S_t.T. The correction gets du = k_t @ dS,
    so dbeta_t = Σ_V du ⊙ (v_t - r_t @ S̃_t) and dv_t = β_t du. The written key gets
    dk_t = u_t @ dS.T, the one read dr_t = -dv_t @ S̃_t.T; where r = k, dk is their sum. Since S̃_t
    was read too, dS̃ = dS - r_t.T @ dv_t; then dlog_decay_t sums dS̃ ⊙ S̃_t over V (and over K where
    a head has one decay), and S_{t-1} receives a_t.T ⊙ dS̃; before the first token that is dstate.

    Saved: q, k, v, beta, log_decay, removal, S̃ of every token.
    """
    xp, n = array_module(q), q.shape[2]
    S = xp.zeros((*q.shape[:2], k.shape[-1], v.shape[-1]), q.dtype) if state is None else state
    asked = k if removal is None else removal
    faded, y = [], xp.empty_like(v)
    for t in range(n):
        q_t, k_t, v_t, beta_t, r_t, decay_t = (
            token(x, t) for x in (q, k, v, beta, asked, log_decay)
        )
        faded.append(forget(decay_t, S))
        S = faded[t] + transposed(k_t) @ (beta_t * (v_t - r_t @ faded[t]))
        token(y, t)[...] = q_t @ S

    def back(gradients):
        dy, dS = gradients
        dS = xp.zeros_like(faded[0]) if dS is None else dS
        dq, dk, dv, dbeta, dr, da = (xp.empty_like(x) for x in (q, k, v, beta, k, k))
        for t in reversed(range(n)):
            q_t, k_t, v_t, beta_t, r_t, dy_t = (token(x, t) for x in (q, k, v, beta, asked, dy))
            error = v_t - r_t @ faded[t]
            after = faded[t] + transposed(k_t) @ (beta_t * error)
            token(dq, t)[...] = dy_t @ transposed(after)
            dS = dS + transposed(q_t) @ dy_t
            du = k_t @ dS
            token(dbeta, t)[...] = (du * error).sum(axis=-1, keepdims=True)
            token(dv, t)[...] = beta_t * du
            token(dk, t)[...] = beta_t * error @ transposed(dS)
            token(dr, t)[...] = -beta_t * du @ transposed(faded[t])
            dS = dS - transposed(r_t) @ (beta_t * du)
            if log_decay is not None:
                da[:, :, t] = (dS * faded[t]).sum(axis=-1)
                dS = forget(token(log_decay, t), dS)
        dlog_decay = None if log_decay is None else sum_to(da, log_decay.shape)
        dstate = None if state is None else dS
        if removal is None:
            return dq, dk + dr, dv, dbeta, dlog_decay, dstate
        return dq, dk, dv, dbeta, dlog_decay, dstate, dr

    return (y, S), back


def l2_norm(x, eps=1e-6):
    """y = r x, r = 1/√(x·x + eps): a vector of length (almost) one.   x (..., d) -> y like x

    The part of dy along x is removed, as scaling x changes nothing: dx = r dy - r³ (dy·x) x.

    Saved: x, r (one number a vector).
    """
    xp = array_module(x)
    r = 1 / xp.sqrt((x * x).sum(axis=-1, keepdims=True) + eps)

    def back(dy):
        return r * dy - x * r**3 * (dy * x).sum(axis=-1, keepdims=True)

    return x * r, back
