"""Adam over the flat vector, clipping, a running average, and the learning rate over time."""

import math

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.params import Params
from minisum.shards import Workers


@has_fast_forms
def adam_update(theta, m, v, g, t, lr, betas, eps, decay, clip, scale, average, rate, workers):
    """Move the flat vectors theta, m and v by step t (from 1) of Adam against g, in place.

    decay: the weight decay of each entry, clip: the largest entry of g, scale: what g is multiplied
    by then, average: a vector that moves towards theta, average += rate (theta - average); None for
    none. workers: threads that share a vector on the host.
    """
    if clip is not None:
        g = array_module(g).clip(g, -clip, clip)
    if scale is not None:
        g = g * scale
    m += (1 - betas[0]) * (g - m)
    v += (1 - betas[1]) * (g * g - v)
    if decay is not None:
        theta -= lr * decay * theta
    m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    theta -= lr * m_hat / (v_hat**0.5 + eps)
    if average is not None:
        average += rate * (theta - average)


class Adam:
    """Adam (Kingma and Ba 2015), and AdamW (Loshchilov and Hutter 2019) if `weight_decay` > 0.

    m ← β₁ m + (1 - β₁) g,   v ← β₂ v + (1 - β₂) g²,
    θ ← θ - lr (m / (1 - β₁ᵗ)) / (√(v / (1 - β₂ᵗ)) + eps) - lr weight_decay θ

    The decay applies to arrays with two axes or more, not to biases and gains. `clip_value` limits
    each gradient entry to ±clip_value; `clip_norm` then scales the whole gradient down to at most
    that Euclidean norm. The gradient passed to `step` is not changed. `workers` share a vector on
    the host; the result does not depend on their number.

    raw_epsilon: eps is added to √v before bias correction, as in Keras; in the formula above it is
    then eps / √(1 - β₂ᵗ), 32 times as large in the first step.
    """

    def __init__(
        self,
        params: Params,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        raw_epsilon: bool = False,
        weight_decay: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        workers: Workers | None = None,
    ):
        self.params, self.workers = params, workers or Workers()
        self.betas, self.eps, self.raw_epsilon = betas, eps, raw_epsilon
        self.clip_value, self.clip_norm = clip_value, clip_norm
        self.m, self.v = params.zeros_like(), params.zeros_like()
        self.steps = 0
        self.decays = weight_decay * params.weights() if weight_decay else None

    def step(self, grads: Params, lr: float, average: "Average | None" = None) -> None:
        """Move the parameters once against `grads` (a Params), and their Average after them."""
        self.steps += 1
        g = grads.vector
        xp = self.params.xp
        scale = None
        if self.clip_norm is not None:
            limit = self.clip_value
            clipped = g if limit is None else xp.clip(g, -limit, limit)
            length = xp.sqrt(xp.vdot(clipped, clipped))
            scale = xp.minimum(1, self.clip_norm / xp.maximum(length, 1e-12))
        moved = self.params.vector, self.m.vector, self.v.vector, g
        eps = self.eps
        if self.raw_epsilon:
            eps /= math.sqrt(1 - self.betas[1] ** self.steps)
        formula = self.steps, lr, self.betas, eps, self.decays
        follow = (average.params.vector, average.rate(self.steps)) if average else (None, None)
        adam_update(*moved, *formula, self.clip_value, scale, *follow, self.workers)


class Average:
    """The exponential moving average of the parameters, often a better model than the last ones.

    a ← a + (1 - decay) (θ - a) after every step. The first steps use a smaller decay,
    (1 + t) / (10 + t), so that the initial parameters are soon forgotten.
    Polyak and Juditsky 1992. `params` is the average; `Adam.step` moves it.
    """

    def __init__(self, params: Params, decay: float):
        self.decay = decay
        self.params = params.zeros_like()
        self.params.vector[...] = params.vector

    def rate(self, steps):
        """1 - decay after step `steps`, counted from 1."""
        return 1 - min(self.decay, (1 + steps) / (10 + steps))


def best_epoch(measured):
    """The index of the best of (score, loss) pairs: the highest score, of equal ones the lowest
    loss, of equal ones the first. NaN is the worst of both.
    """
    ranks = [
        (-math.inf if math.isnan(score) else score, -math.inf if math.isnan(loss) else -loss)
        for score, loss in measured
    ]
    return ranks.index(max(ranks))


def learning_rate(step, total_steps, base, warmup=0, schedule="constant"):
    """The rate for step 0, 1, ...: linear from 0 over `warmup` steps, then by `schedule`.

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
