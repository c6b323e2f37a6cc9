"""Trains and tests linear self-attention of one depth: all laws, forms and seeds at once."""

import time

import numpy as np

from minisum import backend, machine
from minisum.models.in_context import InContextRegressor
from minisum.optim import Adam, learning_rate
from minisum.params import Params
from minisum.shards import Shards, ahead
from train.icl import sequences

# Of the learning rate: the noise of 242 numbers a layer adds up, where that of four does not.
FULL_RATE = 0.1
PROFILE_ROWS = 4000  # sequences at each level of noise, for the figure


class Learner:
    """Models of one form: a copy for each law of noise, N·S of them in one batch."""

    def __init__(self, form, layers, laws, config, xp):
        first = InContextRegressor(form, layers)
        arrays = [first.init(np.random.default_rng([seed, 0])) for seed in range(config.seeds)]
        arrays = {k: np.concatenate([a[k] for a in arrays] * laws) for k in arrays[0]}
        self.form, self.clip_norm = form, config.clip_norm
        self.model = InContextRegressor(form, layers, models=laws * config.seeds)
        self.params = Params.from_arrays(arrays, xp, np.float64)
        self.grads = self.params.zeros_like()
        # One shard; on a GPU the step is recorded, for its many small kernels wait for Python.
        self.shards = Shards(self.model, rows=self.model.models)
        self.adam = Adam(self.params)
        self.last = self.params.zeros_like()  # the parameters of the last finite gradients
        self.skipped = xp.zeros(self.model.models, int)

    def step(self, batch, rate):
        self.shards.loss_and_grads(self.params, self.grads, batch)
        self.clip()
        self.adam.step(self.grads, rate * (FULL_RATE if self.form == "full" else 1))

    def clip(self):
        """Scale each model's gradient to a norm of at most clip_norm.

        A model whose gradient overflowed goes back to where the last one was finite, at rest.
        """
        xp, views = self.params.xp, self.grads.flat.values()
        axes = [tuple(range(1, view.ndim)) for view in views]
        norms = xp.sqrt(sum((v * v).sum(axis=a) for v, a in zip(views, axes, strict=True)))
        finite = xp.isfinite(norms)
        self.skipped += ~finite
        lengths = xp.where(finite, xp.maximum(norms, 1e-300), 1)
        scale = xp.minimum(1, self.clip_norm / lengths)
        for name, view in self.grads.flat.items():
            shape = (-1, *(1 for _ in view.shape[1:]))
            good, now, m = finite.reshape(shape), self.params.flat[name], self.adam.m.flat[name]
            view[...] = xp.where(good, view, 0) * scale.reshape(shape)
            now[...] = xp.where(good, now, self.last.flat[name])
            m[...] = xp.where(good, m, 0)
        self.last.vector[...] = self.params.vector

    def errors(self, G, target):
        """½ |ŵ - ŵ_σ|² (K, B) of each sequence, in the unit of its model."""
        difference = self.model.weights(self.params, G) - target
        return backend.to_numpy((difference * difference).sum(axis=-1) / 2)


def train(config, layers, forms, names, report):
    """{(form, law): result, JSON-able} of the models with so many layers.

    All laws and forms read the same random draws, so that a result does not depend on which others
    are trained beside it.
    """
    xp = backend.get(config.backend)
    laws, seeds = [sequences.LAWS[name] for name in names], config.seeds
    units = sequences.scales(laws)
    learners = [Learner(form, layers, len(laws), config, xp) for form in forms]

    def drawn_at(step):
        return sequences.draw([[seed, step + 1] for seed in range(seeds)], config.batch_size)

    def sigmas_of(u):
        return np.stack([law.sigmas(u) for law in laws])

    started = time.perf_counter()
    what = f"{layers} layer{'s' * (layers > 1)}, {', '.join(map(sequences.title, names))}"
    with report.bar(what, config.steps, 0) as advance:
        draws = ahead(drawn_at, range(config.steps), 1 if xp is np else 4)
        for step, drawn in enumerate(draws):
            G, target = sequences.problems(drawn, sigmas_of(drawn[3]), units, xp)
            rate = learning_rate(step, config.steps, config.lr, config.warmup, "cosine")
            for learner in learners:
                learner.step({"grams": G, "targets": target}, rate)
            advance(None)
    backend.synchronize(xp)
    seconds = (time.perf_counter() - started) / len(learners) / len(laws)
    errors = test(learners, seeds, units, sigmas_of, config.test_size)
    levels = np.stack([sequences.levels(law) for law in laws])
    rows = min(PROFILE_ROWS, config.test_size)
    profile = [
        test(learners, seeds, units, lambda u, σ=σ: σ[:, None, None] + 0 * u, rows).mean(axis=-1)
        for σ in levels.T
    ]
    results = {}
    for f, learner in enumerate(learners):
        skipped = backend.to_numpy(learner.skipped).reshape(-1, seeds)
        for i, name in enumerate(names):
            found = errors[f, i]  # (S, sequences)
            means = found.mean(axis=-1)
            best = int(np.argmin(np.where(np.isfinite(means), means, np.inf)))
            results[learner.form, name] = {
                "form": learner.form, "noise": name, "layers": layers,
                "losses": numbers(means),
                "standard_errors": numbers(found.std(axis=-1) / found.shape[-1] ** 0.5),
                "largest": numbers(found.max(axis=-1)),
                "skipped_steps": skipped[i].tolist(),
                "profile": numbers(losses[f, i, best] for losses in profile),
                "parameters": {
                    k: backend.to_numpy(a)[i * seeds + best].tolist()
                    for k, a in learner.params.flat.items()
                },
                "seconds": seconds, "device": machine.device_name(xp),
                "versions": machine.versions(xp),
            }  # fmt: skip
    return results


def numbers(values):
    """A list, with None in the place of what is not finite."""
    return [float(value) if np.isfinite(value) else None for value in values]


def test(learners, seeds, units, sigmas_of, rows):
    """Errors (forms, N, S, rows) on sequences not trained on, in the unit of the data.

    sigmas_of: random numbers (1, B) -> σ (N, 1, B).
    """
    xp, found = learners[0].params.xp, []
    for drawn in sequences.tests(rows):
        problems = sequences.problems(drawn, sigmas_of(drawn[3]), units, xp)
        problems = [xp.repeat(part, seeds, axis=0) for part in problems]
        found.append([learner.errors(*problems) for learner in learners])
    errors = np.concatenate(found, axis=-1)  # (forms, N·S, rows)
    return errors.reshape(len(learners), len(units), seeds, -1) * (units**2)[:, None, None]
