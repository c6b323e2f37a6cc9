"""What the tests of models that read texts share: batches, gradients, and what `back` may do."""

import numpy as np
from conftest import XP

from minisum import backend


def host(x):
    return backend.to_numpy(x)


def text_batch(model, lengths, n, rest, seed=0, noise=True):
    """Texts of these lengths, padded on the right to n tokens; rest(rng, B): all other arrays.

    noise: with what `model` forgets while training.
    """
    rng = np.random.default_rng(seed)
    B = len(lengths)
    batch = {
        "ids": rng.integers(0, model.vocab, (B, n)).astype(np.int32),
        "mask": np.arange(n) < np.array(lengths)[:, None],
        **rest(rng, B),
    }
    if noise:
        batch |= model.noise(rng, batch)
    return backend.to_device(batch, XP)


def gradient(model, params, batch):
    """The gradient of the batch's loss as one vector on the host."""
    grads = params.zeros_like()
    model.loss(params, batch, model.count_targets(batch))[1](grads)
    return host(grads.vector)


def assert_backward_adds(model, params, batch):
    """Micro-batches are one `+=`: two calls add twice, onto what was there."""
    once = gradient(model, params, batch)
    twice = params.zeros_like()
    twice.vector[...] = 1
    _, back = model.loss(params, batch, model.count_targets(batch))
    back(twice)
    back(twice)
    np.testing.assert_allclose(host(twice.vector), 1 + 2 * once, rtol=1e-12, atol=1e-14)


def assert_writes_to_nothing(model, params, batch):
    before, kept = host(params.vector).copy(), {name: host(a).copy() for name, a in batch.items()}
    gradient(model, params, batch)
    np.testing.assert_array_equal(host(params.vector), before)
    for name, a in batch.items():
        np.testing.assert_array_equal(host(a), kept[name])


def one_of(batch, b, length):
    """Example b alone, cut to its `length` tokens (one of padding, if it has none)."""
    one = {name: a[b : b + 1] for name, a in batch.items()}
    columns = slice(0, max(1, length))
    return one | {"ids": one["ids"][:, columns], "mask": one["mask"][:, columns]}
