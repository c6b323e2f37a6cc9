"""Softmax attention through a few latents: running averages, which each token reads in shares."""

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.products import token, transposed


@has_fast_forms
def latent_average(p, k, v, state=None):
    """y_t = Σ_l p_tl A_tl, A_tl = Σ_{s<=t} e^{k_sl} v_s / Σ_{s<=t} e^{k_sl}, L averages per head.

    p, k (B, H, n, L), v (B, H, n, V), state None or (M, Z (B, H, L), S (B, H, L, V)) -> y
    (B, H, n, V) and the state after the last token: the largest key so far, and denominators and
    numerators divided by e^M. Time O(n L V). Dolga et al. 2024, "Latent attention for linear time
    transformers", section 3.

    With a_t = e^{M_{t-1} - M_t} and w_t = e^{k_t - M_t}: Z_t = a_t ⊙ Z_{t-1} + w_t, S_t = a_t.T ⊙
    S_{t-1} + w_t.T @ v_t, and y_t = r_t @ S_t with r = p / Z. M cancels in y and so counts as a
    constant. Backward, with dS and dZ carried from the end: dr_t = dy_t @ S_t.T,
    dp_t = dr_t / Z_t, dZ -= dr_t ⊙ r_t / Z_t, dS += r_t.T @ dy_t; dv_t = w_t @ dS,
    dk_t = w_t ⊙ (v_t @ dS.T + dZ); then dS and dZ are multiplied by a_t. The state is for
    generation: it has no gradient.

    Saved: p, k, v, M, Z, S of every token.
    """
    xp, n = array_module(p), k.shape[2]
    states, y = [first_latents(k, v) if state is None else state], xp.empty_like(v)
    for t in range(n):
        before, Z, S = states[t]
        M = xp.maximum(before, k[:, :, t])
        a, w = xp.exp(before - M), xp.exp(k[:, :, t] - M)
        Z, S = a * Z + w, a[..., None] * S + w[..., None] * token(v, t)
        states.append((M, Z, S))
        token(y, t)[...] = (p[:, :, t] / Z)[:, :, None] @ S

    def back(gradients):
        dy, _ = gradients
        dp, dk, dv = (xp.empty_like(x) for x in (p, k, v))
        dZ, dS = (xp.zeros_like(x) for x in states[0][1:])
        for t in reversed(range(n)):
            (before, *_), (M, Z, S) = states[t : t + 2]
            a, w = xp.exp(before - M), xp.exp(k[:, :, t] - M)
            dy_t, r = token(dy, t), p[:, :, t] / Z
            dr = (dy_t @ transposed(S))[:, :, 0]
            dp[:, :, t] = dr / Z
            dZ = dZ - dr * r / Z
            dS = dS + r[..., None] * dy_t
            token(dv, t)[...] = w[:, :, None] @ dS
            dk[:, :, t] = w * ((token(v, t) @ transposed(dS))[:, :, 0] + dZ)
            dZ, dS = a * dZ, a[..., None] * dS
        return dp, dk, dv, None

    return (y, states[-1]), back


def first_latents(k, v):
    """(M, Z, S) before the first token: M is that token's key, so that a_1 = 1."""
    xp = array_module(k)
    zero = xp.zeros_like(k[:, :, 0])
    return k[:, :, 0], zero, xp.zeros((*zero.shape, v.shape[-1]), v.dtype)
