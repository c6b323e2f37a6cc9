"""A selective state space model: step size, input and output maps depend on the token."""

from minisum.backend import array_module
from minisum.fast import has_fast_forms


@has_fast_forms
def selective_scan(u, delta, A, B, C, state=None):
    """y_t = h_t @ C_t, h_t = exp(Δ_t A) ⊙ h_{t-1} + (Δ_t ⊙ u_t).T @ B_t, N numbers per channel.

    u, delta = Δ > 0 (B, n, e), A < 0 (e, N), B, C (B, n, N), state h_0 (B, e, N) or None for 0 ->
    y (B, n, e) and h_n. Time O(n e N). Gu and Dao 2023, "Mamba", algorithm 2: A is discretised
    exactly, B by Euler's rule.

    Let dh be the gradient of h, carried from the last token to the first. At token t it gains
    dy_t.T @ C_t, and dC_t = dy_t @ h_t. With the decay's part p = dh ⊙ exp(Δ_t A) ⊙ h_{t-1} and the
    input's w = dh @ B_t: ddelta_t = Σ_N p ⊙ A + w ⊙ u_t; du_t = w ⊙ Δ_t; dB_t = (Δ_t ⊙ u_t) @ dh;
    dA += Δ_t.T ⊙ p. h_{t-1} receives exp(Δ_t A) ⊙ dh, which before the first token is dstate.

    Saved: u, delta, A, B, C, h after every token.
    """
    xp, n = array_module(u), u.shape[1]
    h = xp.zeros((len(u), *A.shape), u.dtype) if state is None else state
    states, y = [h], xp.empty_like(u)
    for t in range(n):
        h = xp.exp(delta[:, t, :, None] * A) * h + (delta * u)[:, t, :, None] * B[:, t, None]
        states.append(h)
        y[:, t] = (h * C[:, t, None]).sum(axis=-1)

    def back(gradients):
        dy, dh = gradients
        dh = xp.zeros_like(h) if dh is None else dh
        du, ddelta, dB, dC = (xp.empty_like(a) for a in (u, delta, B, C))
        dA = xp.zeros_like(A)
        for t in reversed(range(n)):
            step, decay = delta[:, t, :, None], xp.exp(delta[:, t, :, None] * A)
            dh = dh + dy[:, t, :, None] * C[:, t, None]
            dC[:, t] = (dy[:, t, :, None] * states[t + 1]).sum(axis=1)
            p, w = dh * decay * states[t], (dh * B[:, t, None]).sum(axis=-1)
            ddelta[:, t] = (p * A).sum(axis=-1) + w * u[:, t]
            du[:, t] = w * delta[:, t]
            dB[:, t] = ((delta * u)[:, t, :, None] * dh).sum(axis=1)
            dA += (step * p).sum(axis=0)
            dh = decay * dh
        return du, ddelta, dA, dB, dC, None if state is None else dh

    return (y, h), back
