"""The coding rate: its bound's gradient step is token statistics attention (TSSA).

Yu et al. 2020, "Learning diverse and discriminative representations via the principle of maximal
coding rate reduction", and its variational bound: Wu et al. 2025, "Token statistics transformer"
(ToST); both with the precision ε² = d and N times as large as there.
"""

from minisum.backend import array_module


def coding_rate(w, pi):
    """R = ½ Σ_heads P log det(I + S),  S = w.T @ (Π ⊙ w) / P,  P = Σ_t Π_t + 1e-8.

    The nats, up to a constant, needed to describe the tokens of each head to a fixed precision: few
    where they are alike. w (B, H, n, h), the tokens in each head's coordinates; pi, Π above, their
    memberships (B, H, n), not negative -> R (B).

    With M = I + S: dw = Π ⊙ (w @ M⁻¹) and dpi_t = ½ (w_t·(M⁻¹ w_t) - tr(M⁻¹ S) + log det M), both
    multiplied by dR.

    Saved: w, Π, w @ M⁻¹, tr(M⁻¹ S), log det M.
    """
    xp, h = array_module(w), w.shape[-1]
    pi, P = pi[..., None], _total(pi)[..., None]
    S = w.swapaxes(-1, -2) @ (pi * w) / P  # (B, H, h, h)
    M = xp.eye(h, dtype=w.dtype) + S
    logdet = xp.linalg.slogdet(M)[1]  # (B, H)
    solved = xp.linalg.solve(M, w.swapaxes(-1, -2)).swapaxes(-1, -2)  # (B, H, n, h)
    trace = h - xp.linalg.inv(M).trace(axis1=-2, axis2=-1)  # M⁻¹ S = I - M⁻¹

    def back(dR):
        dR = dR[:, None, None]
        dpi = 0.5 * ((w * solved).sum(axis=-1) + (logdet - trace)[..., None])
        return dR[..., None] * pi * solved, dR * dpi

    return 0.5 * (P[..., 0, 0] * logdet).sum(axis=1), back


def coding_rate_bound(w, pi):
    """R̄ = ½ Σ_heads P Σ_c log(1 + D_c),  D_c = Σ_t Π_t w_tc² / P,  P = Σ_t Π_t + 1e-8.

    `coding_rate` with only the diagonal of S = w.T @ (Π ⊙ w) / P: by Hadamard's inequality an upper
    bound, with equality where S is diagonal. Shapes as there. Linear in n and h, where the
    determinant takes h³.

    dw_tc = Π_t w_tc / (1 + D_c): a step against this gradient, memberships held fixed, is what
    token statistics attention adds to its tokens (`minisum.mixers.tssa.token_statistics`).
    dpi_t = ½ Σ_c (w_tc² / (1 + D_c) - D_c / (1 + D_c) + log(1 + D_c)). Both are multiplied by dR̄.

    Saved: w, Π, D.
    """
    xp = array_module(w)
    pi, P = pi[..., None], _total(pi)[..., None]
    D = (pi * w * w).sum(axis=2, keepdims=True) / P  # (B, H, 1, h)

    def back(dR):
        dR = dR[:, None, None, None]
        dpi = 0.5 * ((w * w - D) / (1 + D) + xp.log1p(D))
        return dR * w * pi / (1 + D), (dR * dpi).sum(axis=-1)

    return 0.5 * (P * xp.log1p(D)).sum(axis=(1, 2, 3)), back


def _total(pi):
    """P (B, H, 1)."""
    return pi.sum(axis=2, keepdims=True) + 1e-8
