"""One cell of the table: a mixer, what it begins with, a learning rate and a seed."""

import gc
import math
import time

import numpy as np

from minisum import backend, machine
from minisum.models.closed_form import solve_ridge
from minisum.optim import Adam, learning_rate
from minisum.params import Params
from minisum.shards import Shards

FROZEN_ROWS = 4000  # training rows whose vectors the classifier of the frozen encoder is fitted on


def train_cell(corpus, mixer, start, rate, seed):
    """Accuracy on the test rows after 15, 30, 60, ... steps, and on the validation rows at the end.

    A run whose loss is no longer finite ends there, with `diverged_at` and no more points.
    """
    config, model = corpus.config, corpus.model(mixer)
    xp, started = backend.get(config.backend), time.perf_counter()
    if xp is not np:
        gc.collect()  # the last cell's recordings
        xp.get_default_memory_pool().free_all_blocks()
    params = Params.from_arrays(corpus.first_values(model, mixer, start, seed), xp)
    grads, shards = params.zeros_like(), Shards(model, threads=config.threads if xp is np else None)
    adam = Adam(params, workers=shards.workers, **config.pick("weight_decay", "clip_norm"))
    curve, diverged = [], None
    points = [
        config.steps >> k for k in range(config.steps.bit_length()) if config.steps >> k >= 15
    ]
    for step in range(1, config.steps + 1):
        batch = corpus.train_batch(seed, step)
        noise = model.noise(np.random.default_rng([seed, step, 1]), batch)
        loss = shards.loss_and_grads(params, grads, shards.to_device(batch | noise, xp))
        adam.step(grads, learning_rate(step - 1, config.steps, rate, config.warmup, "cosine"))
        if step in points:
            if not math.isfinite(float(loss)):
                diverged = step
                break
            curve.append([step, accuracy(corpus, shards, params, "test")])
    return {
        "mixer": mixer, "start": start, "lr": rate, "seed": seed, "curve": curve,
        "test_accuracy": None if diverged else curve[-1][1],
        "val_accuracy": None if diverged else accuracy(corpus, shards, params, "val"),
        "diverged_at": diverged, "parameters": params.count,
        "seconds": time.perf_counter() - started,
        "device": machine.device_name(xp), "versions": machine.versions(xp),
    }  # fmt: skip


def accuracy(corpus, shards, params, split):
    hits = 0
    for batch in corpus.in_batches(split):
        logits = shards.predict(params, shards.to_device(batch, params.xp))
        hits += int((backend.to_numpy(logits).argmax(axis=1) == batch["targets"]).sum())
    return hits / len(corpus.splits[split][1])


def untrained_cell(corpus, mixer, start, seed):
    """Test accuracy of an encoder as it is: `zero_shot`, by the name of a class whose vector is
    nearest in angle, and `frozen`, by ridge regression of the classes on the vectors.
    """
    config, model = corpus.config, corpus.model(mixer)
    xp = backend.get(config.backend)
    params = Params.from_arrays(corpus.first_values(model, mixer, start, seed), xp)

    def vectors(batch):
        on_device = backend.to_device({n: batch[n] for n in ("ids", "mask")}, xp)
        return backend.to_numpy(model.features(params, on_device["ids"], on_device["mask"])[0])

    def of(split, limit=None):
        found = [(vectors(batch), batch["targets"]) for batch in corpus.in_batches(split, limit)]
        return (np.concatenate(part) for part in zip(*found, strict=True))

    names = vectors(corpus.reader.batch(corpus.class_texts))
    names = names / np.linalg.norm(names, axis=1, keepdims=True)
    test, truth = of("test")
    train, labels = of("train", FROZEN_ROWS)
    fits = [solve_ridge(train, labels == c) for c in range(len(names))]
    w, b = (np.stack(part) for part in zip(*fits, strict=True))
    scores = {"zero_shot": test @ names.T, "frozen": test @ w.T + b}
    found = {name: float((s.argmax(axis=1) == truth).mean()) for name, s in scores.items()}
    return {"mixer": mixer, "start": start, "seed": seed, **found}
