"""What a mixer costs on a GPU: python -m tests.gpu_costs [NAME ...]

Training steps of the language model of train.causal with its defaults (width 256, 8 heads, 8 x 256
tokens, 8,192 words), three layers of the mixer and attention last. A step is recorded and replayed
as one launch; launch by launch it takes as long as Python needs. Prints a line of JSON for each
mixer: name, whether the step is recorded, milliseconds of both, tokens a second when recorded.
"""

import json
import sys
import time

import numpy as np

from minisum import backend, mixers
from minisum.models.language_model import LanguageModel
from minisum.optim import Adam
from minisum.params import Params
from minisum.shards import Shards

VOCAB, WIDTH, HEADS, BATCH, TOKENS = 8192, 256, 8, 8, 256


def least_seconds(work, rounds, steps):
    """A step, the least of some rounds, each of several steps between two synchronisations."""
    xp, found = backend.get("cupy"), []
    for _ in range(rounds):
        backend.synchronize(xp)
        start = time.perf_counter()
        for _ in range(steps):
            work()
        backend.synchronize(xp)
        found.append((time.perf_counter() - start) / steps)
    return min(found)


def costs(pattern, rounds=7):
    """[recorded, ms recorded, ms launch by launch, tokens a second] of a pattern of layers."""
    xp, rng = backend.get("cupy"), np.random.default_rng(0)
    model = LanguageModel(VOCAB, WIDTH, pattern, TOKENS, HEADS)
    params = Params.from_arrays(model.init(rng), xp)
    grads, adam = params.zeros_like(), Adam(params)
    batch = {k: rng.integers(0, VOCAB, (BATCH, TOKENS), np.int32) for k in ("ids", "targets")}
    seconds = []
    for record in (True, False):
        shards = Shards(model, record=record)
        on_device = shards.to_device(batch, xp)

        def step(shards=shards, on_device=on_device):
            shards.loss_and_grads(params, grads, on_device, BATCH * TOKENS)
            adam.step(grads, 1e-5)

        least_seconds(step, 1, 3)
        seconds.append(least_seconds(step, rounds, 5 if record else 1))
        if record:
            recorded = all(shards.recorder.recordings.values())
    ms = (round(1000 * s, 2) for s in seconds)
    return [recorded, *ms, round(BATCH * TOKENS / seconds[0])]


def main():
    for name in sys.argv[1:] or mixers.names(causal=True):
        print(json.dumps([name, *costs(f"{name}*3,attention")]), flush=True)


if __name__ == "__main__":
    main()
