"""A softmax over time with decay, which gives the current token a weight of its own."""

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.softmax_pooling import first_state


@has_fast_forms
def wkv(k, v, w, u, state=None):
    """y_t = (Σ_{s<t} e^{(t-1-s) w + k_s} v_s + e^{u + k_t} v_t) / (the same with v = 1).

    k, v (B, n, d), w < 0 and u (d), state None or (M, N, Z) each (B, d) -> y (B, n, d) and the
    state after the last token; the next token reads the sums e^M N and e^M Z. Time O(n d).
    Peng et al. 2023, "RWKV", equation 16.

    M_t = max(M_{t-1} + w, k_t) keeps every exponent at most 0. With f_t = e^{w + M_{t-1} - M_t} and
    e_t = e^{k_t - M_t}: N_t = f_t N_{t-1} + e_t v_t, and Z_t the same with v = 1. Token t reads in
    units of e^R, R = max(M_{t-1}, u + k_t), with past = e^{M_{t-1} - R} and now = e^{u + k_t - R}:
    y = n / z, n = past N_{t-1} + now v_t, and z the same with Z and v = 1. M and R cancel in y and
    so count as constants. Backward, with dn = dy / z and dz = -dy ⊙ y / z, and dN, dZ carried from
    the last token to the first: dv = now dn + e dN; b = now (dn v + dz); dk = b + e (dN v + dZ);
    du = Σ b and dw = Σ f (dN N_{t-1} + dZ Z_{t-1}) over texts and tokens; then dN becomes
    f dN + past dn, and dZ becomes f dZ + past dz. The state is for generation: it has no gradient.

    Saved: k, v, w, u, y, M, N, Z of every token.
    """
    xp, n = array_module(k), k.shape[1]
    states, y = [first_state(k) if state is None else state], xp.empty_like(k)

    def reading(t):
        M, N, Z = states[t]
        R = xp.maximum(M, u + k[:, t])
        past, now = xp.exp(M - R), xp.exp(u + k[:, t] - R)
        return past, now, past * Z + now

    def writing(t):
        M, after = states[t][0], xp.maximum(states[t][0] + w, k[:, t])
        return after, xp.exp(w + M - after), xp.exp(k[:, t] - after)

    for t in range(n):
        _, N, Z = states[t]
        past, now, z = reading(t)
        y[:, t] = (past * N + now * v[:, t]) / z
        M, f, e = writing(t)
        states.append((M, f * N + e * v[:, t], f * Z + e))

    def back(gradients):
        dy, _ = gradients
        dk, dv, du, dw = (xp.zeros_like(a) for a in (k, v, u, w))
        dN = dZ = xp.zeros_like(k[:, 0])
        for t in reversed(range(n)):
            _, N, Z = states[t]
            past, now, z = reading(t)
            _, f, e = writing(t)
            dn = dy[:, t] / z
            dz = -dn * y[:, t]
            dv[:, t] = now * dn + e * dN
            bonus = now * (dn * v[:, t] + dz)
            dk[:, t] = bonus + e * (dN * v[:, t] + dZ)
            du += bonus.sum(axis=0)
            dw += (f * (dN * N + dZ * Z)).sum(axis=0)
            dN, dZ = f * dN + past * dn, f * dZ + past * dz
        return dk, dv, dw, du, None

    return (y, states[-1]), back
