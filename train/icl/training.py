"""Trains and tests linear self-attention of one depth: all laws, forms and seeds at once."""

import time

import numpy as np

from minisum import backend
from minisum.models.in_context import InContextRegressor
from minisum.optim import Adam, learning_rate
from minisum.params import Params
from train.icl import sequences

PROFILE_LEVELS, PROFILE_ROWS = 15, 4000  # noise levels of a profile, sequences for each


class Learner:
    """Models of one form: a copy for each law of noise, N·S of them in one batch."""

    def __init__(self, form, layers, laws, config, xp):
        first = InContextRegressor(form, layers)
        arrays = [first.init(np.random.default_rng([seed, 0])) for seed in range(config.seeds)]
        arrays = {k: np.concatenate([a[k] for a in arrays] * laws) for k in arrays[0]}
        self.form, self.config = form, config
        self.model = InContextRegressor(form, layers, models=laws * config.seeds)
        self.params = Params.from_arrays(arrays, xp, np.float64)
        self.grads = self.params.zeros_like()
        self.adam = Adam(self.params)
        self.skipped = xp.zeros(self.model.models, int)

    def step(self, batch, rate):
        self.grads.vector[...] = 0
        _, back = self.model.loss(self.params, batch, self.model.count_targets(batch))
        back(self.grads)
        self.clip()
        self.adam.step(self.grads, rate)

    def clip(self):
        """Scale each model's gradient to a norm of at most clip_norm; drop one that overflowed."""
        xp, views = self.params.xp, self.grads.flat.values()
        axes = [tuple(range(1, view.ndim)) for view in views]
        norms = xp.sqrt(sum((v * v).sum(axis=a) for v, a in zip(views, axes, strict=True)))
        finite = xp.isfinite(norms)
        self.skipped += ~finite
        lengths = xp.where(finite, xp.maximum(norms, 1e-300), 1)
        scale = xp.minimum(1, self.config.clip_norm / lengths)
        for view, axis in zip(views, axes, strict=True):
            shape = (-1, *(1 for _ in axis))
            view[...] = xp.where(finite.reshape(shape), view, 0) * scale.reshape(shape)

    def errors(self, G, target):
        """½ |ŵ - ŵ_σ|² (K, B) of each sequence, in the unit of its model."""
        difference = self.model.weights(self.params, G) - target
        return (difference * difference).sum(axis=-1) / 2


def train(config, layers, forms, names, report):
    """{(form, law): result, JSON-able} of the models with so many layers.

    All laws and forms read the same random draws, so that a result does not depend on which others
    are trained beside it.
    """
    xp = backend.get(config.backend)
    laws = [sequences.LAWS[name] for name in names]
    units = sequences.scales(laws)
    learners = [Learner(form, layers, len(laws), config, xp) for form in forms]

    def sigmas_of(u):
        return np.stack([law.sigmas(u) for law in laws])

    started = time.perf_counter()
    what = f"{layers} layer{'s' * (layers > 1)}, {', '.join(map(sequences.title, names))}"
    with report.bar(what, config.steps, 0) as advance:
        for step in range(config.steps):
            drawn = sequences.draw([[s, step + 1] for s in range(config.seeds)], config.batch_size)
            G, target = sequences.problems(drawn, sigmas_of(drawn[3]), units, xp)
            rate = learning_rate(step, config.steps, config.lr, config.warmup, "cosine")
            for learner in learners:
                learner.step({"grams": G, "targets": target}, rate)
            advance(None)
    backend.synchronize(xp)
    seconds = (time.perf_counter() - started) / len(learners) / len(laws)
    results = {}
    for learner in learners:
        shape = len(laws), config.seeds
        errors = test(learner, units, sigmas_of, config.test_size).reshape(*shape, -1)
        levels, profiles = profile(learner, laws, units, min(PROFILE_ROWS, config.test_size))
        skipped = backend.to_numpy(learner.skipped).reshape(shape)
        for i, name in enumerate(names):
            means = errors[i].mean(axis=-1)
            best = int(np.nanargmin(np.append(means, np.inf)) % config.seeds)
            results[learner.form, name] = {
                "form": learner.form, "noise": name, "layers": layers,
                "losses": means.tolist(),
                "standard_errors": (errors[i].std(axis=-1) / errors.shape[-1] ** 0.5).tolist(),
                "largest": errors[i].max(axis=-1).tolist(),
                "skipped_steps": skipped[i].tolist(),
                "levels": levels[i].tolist(),
                "profile": profiles[i, best].tolist(),
                "parameters": {
                    k: backend.to_numpy(a).reshape(*shape, *a.shape[1:])[i, best].tolist()
                    for k, a in learner.params.flat.items()
                },
                "seconds": seconds,
            }  # fmt: skip
    return results


def test(learner, units, sigmas_of, rows):
    """Errors (N·S, rows) on sequences that no model was trained on, in the unit of the data.

    sigmas_of: random numbers (1, B) -> σ (N, 1, B).
    """
    xp, seeds, found = learner.params.xp, learner.config.seeds, []
    for drawn in sequences.tests(rows):
        problems = sequences.problems(drawn, sigmas_of(drawn[3]), units, xp)
        errors = learner.errors(*(xp.repeat(part, seeds, axis=0) for part in problems))
        found.append(backend.to_numpy(errors))
    return np.concatenate(found, axis=-1) * np.repeat(units**2, seeds)[:, None]


def profile(learner, laws, units, rows):
    """Noise levels (N, levels) from 0 to 1 above those of training, and losses (N, S, levels)."""
    tops = np.array([sequences.largest_noise(law) + 1 for law in laws])
    levels = tops[:, None] * np.linspace(0, 1, PROFILE_LEVELS)
    losses = [
        test(learner, units, lambda u, σ=σ: σ[:, None, None] + 0 * u, rows).mean(axis=-1)
        for σ in levels.T
    ]
    return levels, np.stack(losses, axis=-1).reshape(len(laws), -1, PROFILE_LEVELS)
