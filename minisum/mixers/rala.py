"""Rank-augmented linear attention: Fan, Huang and He 2024, "Breaking the low-rank dilemma of linear
attention".

Linear attention in which keys are weighted by how well they agree with the mean query; a gate
multiplies the output. Time O(n d h), memory O(n d). Not causal, since the weights depend on the
whole text, and so without a state.
"""

from minisum import init
from minisum.backend import array_module
from minisum.layers import linear_layer
from minisum.mixers.base import Mixer, join, keep_real, to_heads
from minisum.ops import elu_plus_one, kernel_attention, merge_heads
from minisum.ops.softmax_attention import softmax


class RALA(Mixer):
    """y = (o ⊙ g) @ Wo.T + bo, o_t = Σ_s (q_t·k_s) α_s v_s / (Σ_s (q_t·k_s) α_s + 1e-6).

    q and k = elu + 1 of linear maps of x; v and g linear maps; all with bias, in both directions
    only. In each head α = softmax of q̄·k_s / √h over the real tokens, q̄ the mean of their
    queries. (The published layer, for images, also rotates q and k by their positions in the
    numerator and adds a convolution of v.)

    Backward: `ops.kernel_attention` with keys α k; α gets dα = Σ d(α k) ⊙ k, the softmax
    dℓ = α (dα - Σ_s α dα) / √h; k gets α d(α k) + dℓ q̄, and every query also Σ_s dℓ_s k_s / n,
    through the mean.
    """

    can_be_causal = False

    def init(self, rng):
        names = ("q", "k", "v", "gate", "o")
        return {name: init.linear(rng, self.width, self.width) for name in names}

    def mix(self, params, x, mask, state):
        xp, H = array_module(x), self.heads
        scale = (self.width // H) ** -0.5
        raw_q, back_q = to_heads(params["q"], x, H)
        raw_k, back_k = to_heads(params["k"], x, H)
        v, back_v = to_heads(params["v"], x, H)
        gate, back_gate = linear_layer(params["gate"], x)
        q, back_phi_q = elu_plus_one(raw_q)
        k, back_phi_k = elu_plus_one(raw_k)
        q, k = keep_real(q, mask), keep_real(k, mask)
        count = x.shape[1] if mask is None else mask.sum(axis=1)[:, None, None, None]
        count = xp.maximum(xp.asarray(count), 1).astype(x.dtype)
        mean = q.sum(axis=2, keepdims=True) / count
        logits = (mean * k).sum(axis=-1) * scale  # (B, H, n)
        visible = logits if mask is None else xp.where(mask[:, None], logits, -xp.inf)
        alpha = softmax(visible)[..., None]
        (o, _), back_core = kernel_attention(q, alpha * k, v)
        joined, back_merge = merge_heads(o)
        y, back_o = linear_layer(params["o"], joined * gate)

        def back(dy):
            dgated, dparams_o = back_o(dy)
            dq, dweighted, dv, _ = back_core((back_merge(dgated * gate), None))
            dalpha = (dweighted * k).sum(axis=-1, keepdims=True)
            dlogits = alpha * (dalpha - (alpha * dalpha).sum(axis=2, keepdims=True)) * scale
            dk = alpha * dweighted + dlogits * mean
            dq = keep_real(dq + (dlogits * k).sum(axis=2, keepdims=True) / count, mask)
            dx, dparams = join(
                q=back_q(back_phi_q(dq)),
                k=back_k(back_phi_k(keep_real(dk, mask))),
                v=back_v(dv),
                gate=back_gate(dgated * joined),
            )
            return dx, dparams | {"o": dparams_o}

        return (y, None), back
