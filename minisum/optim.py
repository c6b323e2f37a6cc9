"""Adam over the flat vector, clipping, a running average, and the learning rate over time."""

import math

import numpy as np

from minisum.backend import array_module
from minisum.fast import cuda as kernels
from minisum.shards import Workers

# Entries a piece: its gradient, parameters and both moments (1 MB) stay in a core's cache.
PIECE = 65536


class Adam:
    """Adam (Kingma and Ba 2015), and AdamW (Loshchilov and Hutter 2019) if `weight_decay` > 0.

    m ← β₁ m + (1 - β₁) g,   v ← β₂ v + (1 - β₂) g²,
    θ ← θ - lr (m / (1 - β₁ᵗ)) / (√(v / (1 - β₂ᵗ)) + eps) - lr weight_decay θ

    The decay touches arrays with two axes or more; biases and gains keep their size. `clip_value`
    limits each gradient entry to ±clip_value; `clip_norm` then scales the whole gradient down to
    that Euclidean length. The gradient passed to `step` is left as it was. `workers` share out the
    pieces that a vector on the host is cut into; no entry's result depends on the cut.
    """

    def __init__(
        self,
        params,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        clip_value=None,
        clip_norm=None,
        workers=None,
    ):
        self.params, self.workers = params, workers or Workers()
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
        scale = 1.0
        if self.clip_norm is not None:
            limit = self.clip_value
            clipped = g if limit is None else xp.clip(g, -limit, limit)
            length = xp.sqrt(xp.vdot(clipped, clipped))
            scale = xp.minimum(1, self.clip_norm / xp.maximum(length, 1e-12))
        if kernels.runs_on(g):
            self._update_fused(g, scale, lr)
            return
        in_pieces(lambda piece: self._update(piece, g, scale, lr), g, self.workers)

    def _update_fused(self, g, scale, lr):
        """`_update` of the whole vector in one GPU kernel."""
        weight = self.decays if self.weight_decay else kernels.nothing(self.params.dtype)
        root = math.sqrt(1 - self.betas[1] ** self.steps)
        rate = lr / (1 - self.betas[0] ** self.steps)
        vectors = (self.params.vector, self.m.vector, self.v.vector)
        clip, shrink = self.clip_value or 0.0, lr * self.weight_decay
        kernels.adam(g, weight, scale, clip, rate, shrink, self.betas, root, self.eps, *vectors)

    def _update(self, piece, g, scale, lr):
        """The formula above on one piece of the vector, in place."""
        xp = self.params.xp
        theta, m, v = (mirror.vector[piece] for mirror in (self.params, self.m, self.v))
        g = g[piece]
        if self.clip_value is not None:
            g = xp.clip(g, -self.clip_value, self.clip_value)
        if self.clip_norm is not None:
            g = g * scale
        beta1, beta2 = self.betas
        change = g - m
        change *= 1 - beta1
        m += change
        xp.multiply(g, g, out=change)
        change -= v
        change *= 1 - beta2
        v += change
        if self.weight_decay:
            theta -= (lr * self.weight_decay) * self.decays[piece] * theta
        # Both sides of the fraction times root, which spares a pass that divides √v by it.
        root = math.sqrt(1 - beta2**self.steps)
        denominator = xp.sqrt(v, out=change)
        denominator += self.eps * root
        quotient = xp.divide(m, denominator, out=denominator)
        quotient *= lr * root / (1 - beta1**self.steps)
        theta -= quotient


class Average:
    """The exponential moving average of the parameters, often a better model than the last ones.

    a ← a + (1 - decay) (θ - a) after every step. In the first steps the average reaches back less
    far, decay = (1 + t) / (10 + t), so that the initial parameters are soon forgotten.
    Polyak and Juditsky 1992. `params` is the average, `workers` share out its pieces.
    """

    def __init__(self, params, decay, workers=None):
        self.decay, self.workers = decay, workers or Workers()
        self.params = params.zeros_like()
        self.params.vector[...] = params.vector

    def update(self, params, steps):
        """Take in the parameters after step `steps` (counted from 1)."""
        rate = 1 - min(self.decay, (1 + steps) / (10 + steps))
        average, vector = self.params.vector, params.vector
        if kernels.runs_on(average):
            kernels.towards(vector, rate, average)
            return

        def towards(piece):
            average[piece] += rate * (vector[piece] - average[piece])

        in_pieces(towards, average, self.workers)


def in_pieces(change, vector, workers):
    """Call change(piece) for slices that together are all of `vector`: on a GPU a single one."""
    if array_module(vector) is not np:
        change(slice(None))
        return

    def work(worker):
        for start in range(worker * PIECE, vector.size, workers.count * PIECE):
            change(slice(start, start + PIECE))

    workers.each(work)


def learning_rate(step, total_steps, base, warmup=0, schedule="constant"):
    """The rate for step 0, 1, ...: up from 0 in a line over `warmup` steps, then by `schedule`.

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
