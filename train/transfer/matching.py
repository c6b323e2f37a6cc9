"""A mixer taught to answer as attention does, layer by layer, before it is given the task.

Zhang et al. 2024, "The hedgehog & the porcupine: expressive linear attentions with softmax
mimicry", match attention's weights by feature maps; here whole mixers match its outputs.
"""

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


def match(corpus, mixer, arrays, seed):
    """`arrays`, an encoder with `mixer`, after config.match_steps steps of Adam on its mixers.

    Every layer reads what attention's layer reads in the pretrained encoder. Loss: Σ_l |y - a|² /
    |a|², a what attention answers there.
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
            x, answer = watched.mixer.seen
            y, back = block.mixer(params["blocks"][name]["mixer"], x, batch["mask"])
            error = (y * block.scale - answer) / (answer * answer).sum()
            add(grads["blocks"][name]["mixer"], back(2 * block.scale * error)[1])
        adam.step(grads, RATE)
    return params.to_host()
