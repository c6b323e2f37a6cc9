"""Adam over the flat vector, clipping, and the learning rate over time."""

import math

import numpy as np

# Entries per piece: gradient, parameter and both moments of a piece (0.5 MB) stay in a core's cache.
PIECE = 32768


class Adam:
    """Adam (Kingma and Ba 2015), and AdamW (Loshchilov and Hutter 2019) if `weight_decay` > 0.

    m ← β₁ m + (1 - β₁) g,   v ← β₂ v + (1 - β₂) g²,
    θ ← θ - lr (m / (1 - β₁ᵗ)) / (√(v / (1 - β₂ᵗ)) + eps) - lr weight_decay θ

    The decay touches arrays with two axes or more; biases and gains keep their size. `clip_value`
    limits each gradient entry to ±clip_value; `clip_norm` then scales the whole gradient down to
    that Euclidean length. The gradient passed to `step` is left as it was.
    """

    def __init__(
        self,
        params,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        clip_value=None,
        clip_norm=None,
    ):
        self.params = params
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.clip_value, self.clip_norm = clip_value, clip_norm
        self.m, self.v = params.zeros_like(), params.zeros_like()
        self.steps = 0
        self.decays = params.weights() if weight_decay else None

    def step(self, grads, lr):
        """Move the parameters once against `grads` (a Params), at learning rate `lr`."""
        self.steps += 1
        g = grads.vector
        xp = self.params.xp
        if self.clip_value is not None:
            g = xp.clip(g, -self.clip_value, self.clip_value)
        if self.clip_norm is not None:
            length = xp.sqrt(xp.vdot(g, g))
            g = g * xp.minimum(1, self.clip_norm / xp.maximum(length, 1e-12))
        if xp is not np:
            self._update(slice(None), g, lr)
            return
        for start in range(0, g.size, PIECE):
            self._update(slice(start, start + PIECE), g, lr)

    def _update(self, piece, g, lr):
        """The formula above on one piece of the vector, in place."""
        theta, m, v, g = self.params.vector[piece], self.m.vector[piece], self.v.vector[piece], g[piece]
        beta1, beta2 = self.betas
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * (g * g)
        if self.weight_decay:
            theta -= (lr * self.weight_decay) * self.decays[piece] * theta
        denominator = self.params.xp.sqrt(v)
        denominator /= math.sqrt(1 - beta2**self.steps)
        denominator += self.eps
        theta -= (lr / (1 - beta1**self.steps)) * m / denominator


def learning_rate(step, total_steps, base, warmup=0, schedule="constant"):
    """The rate for step 0, 1, ...: up from 0 in a line over `warmup` steps, then as `schedule` says.

    "constant" stays at `base`; "cosine" falls to 0 at `total_steps` along half a cosine
    (Loshchilov and Hutter 2017).
    """
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule == "constant":
        return base
    if schedule == "cosine":
        progress = (step - warmup) / max(1, total_steps - warmup)
        return base * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    raise ValueError(f"unknown schedule {schedule!r}: constant or cosine")
