"""What the training loop and the shards ask of every model, with the usual answers."""

import numpy as np


class Model:
    """Base of the models. Subclasses define `init`, `loss`, `predict`, `weight` and `numbers`."""

    def noise(self, rng, batch):
        """Extra arrays that a training batch needs, drawn on the host: none without dropout."""
        return {}

    def numbers(self, batch):
        """How many numbers one layer's array holds for one example: what shards are sized by."""
        raise NotImplementedError

    def trim(self, batch):
        """`batch`, a shard on the host, without what is padding only."""
        return batch


def without_padding(batch):
    """Leave out the last columns of ids and mask if they are all padding; mask None if none is."""
    columns = np.flatnonzero(batch["mask"].any(axis=0))
    n = int(columns[-1]) + 1 if columns.size else 1
    mask = batch["mask"][:, :n]
    return batch | {"ids": batch["ids"][:, :n], "mask": None if mask.all() else mask}
