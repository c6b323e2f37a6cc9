"""Token statistics self-attention: Wu et al. 2025, "Token statistics transformer: linear-time
attention via variational rate reduction" (ToST), with the released code of both forms.

Tokens are not compared. Each head is a subspace, and tokens are softly assigned to heads; each head
measures the second moment of its tokens per channel and shrinks the channels where it is largest.
Time O(n d), memory O(n d); state 2d + H + 1, the last for the position.
"""

from functools import partial

import numpy as np

from minisum import init
from minisum.backend import array_module
from minisum.layers import token_places
from minisum.mixers.base import Mixer, from_heads, keep_real, to_heads
from minisum.ops import embed
from minisum.ops.running import cumsum, reverse_cumsum


class TSSA(Mixer):
    """y = concat_heads(o) @ Wo.T (+ bo), o = `token_statistics` of the heads of x @ W.T (+ b).

    The causal form, from the language models, has no biases but a learned score for each position
    and head (so max_len bounds the text); the other, from the image models, has biases.

    Backward, upwards: the output map, the statistics (derived there), the map into heads.
    """

    def init(self, rng):
        d, H = self.width, self.heads
        linear = partial(init.linear, rng, d, d, "normal", bias=not self.causal)
        params = {"project": linear(), "o": linear(), "temperature": np.ones(H)}
        if self.causal:
            params["positions"] = np.zeros((self.max_len, H))
        return params

    def mix(self, params, x, mask, state):
        w, back_w = to_heads(params["project"], x, self.heads)
        w = keep_real(w, mask)
        tau = params["temperature"]
        if not self.causal:
            o, back_statistics = token_statistics(w, tau, mask)
        else:
            sums, start = (None, 0) if state is None else state
            state_end = start + x.shape[1]
            self.check_length(state_end)
            xp = array_module(x)
            places = xp.broadcast_to(token_places(x, mask, start), x.shape[:2])
            bias, back_embed = embed(places, params["positions"])
            (o, sums), back_statistics = running_token_statistics(
                w, tau, bias.swapaxes(1, 2), mask, sums
            )
            state = (sums, state_end)
        y, back_o = from_heads(params["o"], o)

        def back(dy):
            do, dparams_o = back_o(dy)
            dw, dtau, *rest = back_statistics(do)
            dx, dproject = back_w(keep_real(dw, mask))
            dparams = {"project": dproject, "o": dparams_o, "temperature": dtau}
            if self.causal:
                dparams["positions"] = back_embed(rest[0].swapaxes(1, 2))[1].dense()
            return dx, dparams

        return (y, state), back

    def memberships(self, params, x):
        """Of texts read from their start: w and o, like (B, H, n, h), and Π (B, H, n).

        w: the tokens in each head's coordinates; o: what the head adds there, a step against the
        gradient of the coding rate's bound (`minisum.ops.coding_rate_bound`); Π: the share of each
        token that belongs to the head.
        """
        w, _ = to_heads(params["project"], x, self.heads)
        tau = params["temperature"]
        if not self.causal:
            return w, token_statistics(w, tau)[0], _assign(w, tau[:, None])[0]
        bias = params["positions"][: x.shape[1]].T[None]
        o = running_token_statistics(w, tau, bias)[0][0]
        return w, o, _assign_so_far(w, tau[:, None], bias)[0]

    def state_size(self, tokens=None):
        return 2 * self.width + self.heads + 1


def token_statistics(w, tau, mask=None):
    """o_tc = -w_tc Π_t / (1 + D_c), D_c = Σ_t Π_t w_tc² / P, P = Σ_t Π_t + 1e-8, in each head.

    Π = softmax over heads of τ s, 0 at padding; s_t = Σ_c w_tc² / N_c; N_c = Σ_t w_tc², but at
    least 1e-24. w (B, H, n, h), zero at padding, tau (H), mask (B, n) or None -> o like w. With one
    head Π = 1.

    With r = 1/(1 + D): dw = -do Π r; dΠ = -Σ_c do w r; dD = r² Σ_t do w Π. Through D: dΠ +=
    Σ_c dD (w² - D) / P and dw² = Π dD / P. Through the softmax dℓ = Π (dΠ - Σ_H Π dΠ); dτ =
    Σ dℓ s, ds = τ dℓ. Through s: dw² += (ds - Σ_t ds w² / N) / N, the sum only where N is not
    held at 1e-24; and dw += 2 w dw².

    Saved: w, tau, Π, s, N, P, D.
    """
    xp = array_module(w)
    tau = tau[:, None]
    membership, s, N, raw = _assign(w, tau, mask)
    P = membership.sum(axis=2)[:, :, None, None] + 1e-8
    D = (membership[..., None] * w * w).sum(axis=2, keepdims=True) / P

    def back(do):
        square, r, pi = w * w, 1 / (1 + D), membership[..., None]
        dpi = -(do * w * r).sum(axis=-1)
        dD = r * r * (do * w * pi).sum(axis=2, keepdims=True)
        dpi += (dD * (square - D)).sum(axis=-1) / P[..., 0]
        dlogits = membership * (dpi - (membership * dpi).sum(axis=1, keepdims=True))
        ds = (tau * dlogits)[..., None]
        through_N = xp.where(raw > 1e-24, (ds * (square / N)).sum(axis=2, keepdims=True), 0)
        dsquare = pi * dD / P + (ds - through_N) / N
        return -do * pi * r + 2 * w * dsquare, (dlogits * s).sum(axis=(0, 2)), None

    return -w * membership[..., None] / (1 + D), back


def running_token_statistics(w, tau, bias, mask=None, state=None):
    """`token_statistics` with every sum over tokens replaced by the sum so far.

    C_t = Σ_{s<=t} w_s², but at least 1e-12; s_t = Σ_c (w_tc² / C_tc + bias_t);
    P_t = Σ_{s<=t} Π_s + 1e-8; D_t = Σ_{s<=t} Π_s w_s² / P_t. bias (B, H, n), added once for each of
    the h channels as in the released code; state the three sums (B, H, h), (B, H), (B, H, h) or
    None -> o, and the state. The state has no gradient.

    Backward as there, with rcs, the sum over a token and all later ones: A = rcs(dD / P), dΠ += Σ_c
    A w² - rcs(Σ_c dD D / P), dw² = Π A + ds / C + rcs(-ds w² / C²), the last only where C is not
    held; dbias = h ds.

    Saved: w, tau, Π, s, C, P, D.
    """
    xp = array_module(w)
    tau, h = tau[:, None], w.shape[-1]
    zero = xp.zeros_like(w[:, :, 0])
    squares, mass, spread = (zero, zero[..., 0], zero) if state is None else state
    membership, s, C, raw = _assign_so_far(w, tau, bias, mask, squares)
    total = mass[:, :, None] + cumsum(membership, 2)
    P = total[..., None] + 1e-8
    moment = spread[:, :, None] + cumsum(membership[..., None] * w * w, 2)
    D = moment / P
    state = (raw[:, :, -1], total[:, :, -1], moment[:, :, -1])

    def back(do):
        square, r, pi = w * w, 1 / (1 + D), membership[..., None]
        dD = r * r * do * w * pi / P
        A = reverse_cumsum(dD, 2)
        dpi = -(do * w * r).sum(axis=-1) + (A * square).sum(axis=-1)
        dpi -= reverse_cumsum((dD * D).sum(axis=-1), 2)
        dlogits = membership * (dpi - (membership * dpi).sum(axis=1, keepdims=True))
        ds = tau * dlogits
        share = ds[..., None] / C
        dC = xp.where(raw > 1e-12, -share * (square / C), 0)
        dsquare = pi * A + share + reverse_cumsum(dC, 2)
        dw = -do * pi * r + 2 * w * dsquare
        return dw, (dlogits * s).sum(axis=(0, 2)), h * ds, None, None

    return (-w * membership[..., None] / (1 + D), state), back


def _assign(w, tau, mask=None):
    """Π, s, N and Σ_t w_tc² of `token_statistics`; tau (H, 1)."""
    raw = (w * w).sum(axis=2, keepdims=True)
    N = array_module(w).maximum(raw, 1e-24)
    s = (w * w / N).sum(axis=-1)
    return _softmax_over_heads(tau * s, mask), s, N, raw


def _assign_so_far(w, tau, bias, mask=None, squares=None):
    """Π, s, C and Σ_{s<=t} w_sc² of `running_token_statistics`, after earlier `squares`."""
    raw = cumsum(w * w, 2) + (0 if squares is None else squares[:, :, None])
    C = array_module(w).maximum(raw, 1e-12)
    s = (w * w / C).sum(axis=-1) + w.shape[-1] * bias
    return _softmax_over_heads(tau * s, mask), s, C, raw


def _softmax_over_heads(logits, mask):
    """(B, H, n) -> each token's membership of the heads, 0 at padding."""
    xp = array_module(logits)
    weights = xp.exp(logits - logits.max(axis=1, keepdims=True))
    membership = weights / weights.sum(axis=1, keepdims=True)
    return membership if mask is None else xp.where(mask[:, None], membership, 0)
