"""Mixers that learn from attention, layer by layer, before they are given the task."""

import numpy as np

from minisum import backend
from minisum.optim import Adam
from minisum.params import Params, add

RATE = 1e-3


class Watched:
    """A mixer that keeps what it last read and answered: `seen`, x and y (B, n, d)."""

    def __init__(self, mixer):
        self.mixer, self.width = mixer, mixer.width

    def __call__(self, params, x, mask=None):
        y, back = self.mixer(params, x, mask)
        self.seen = x, y
        return y, back


def match(corpus, mixer, arrays, seed, lesson):
    """`arrays`, an encoder with `mixer`, after config.match_steps steps of Adam on its mixers.

    Every layer reads what attention's layer reads in the pretrained encoder. lesson: a function of
    train.transfer.lessons.
    """
    xp = backend.get(corpus.config.backend)
    teacher, student = corpus.model("attention"), corpus.model(mixer)
    drawn = teacher.init(np.random.default_rng(0))
    fixed = Params.from_arrays(corpus.pretrained.fill(drawn), xp)
    for block in teacher.encoder.blocks:
        block.mixer = Watched(block.mixer)
    params = Params.from_arrays(arrays, xp)
    grads, adam = params.zeros_like(), Adam(params)
    for step in range(1, corpus.config.match_steps + 1):
        batch = backend.to_device(corpus.train_batch(seed, step), xp)
        teacher.features(fixed, batch["ids"], batch["mask"])
        grads.vector[...] = 0
        for name, block, watched in zip(
            params["blocks"], student.encoder.blocks, teacher.encoder.blocks, strict=True
        ):
            own = params["blocks"][name]["mixer"]
            dparams = lesson(block, own, watched.mixer.seen, batch["mask"])
            add(grads["blocks"][name]["mixer"], dparams)
        adam.step(grads, RATE)
    return params.to_host()
