"""What the training loop and the shards ask of every model, with the usual answers."""

import numpy as np

from minisum import backend
from minisum.ops import layer_norm

# Lengths of padded batches on a GPU (see Model.widen).
LENGTH_BUCKET = 16


class Model:
    """Base of the models.

    Subclasses define `init`, `loss`, `predict`, `count_targets` and `activation_size`.
    """

    def noise(self, rng, batch):
        """Extra arrays that a training batch needs, drawn on the host: none without dropout."""
        return {}

    def activation_size(self, batch):
        """How many numbers one layer's array holds for one example: what shards are sized by."""
        raise NotImplementedError

    def trim_padding(self, batch):
        """`batch`, a shard on the host, without what is padding only."""
        return batch

    def to_device(self, batch, xp):
        """`batch`, on the host, as arrays of `xp`; for a GPU widened."""
        return backend.to_device(batch if xp is np else self.pad_to_bucket(batch), xp)

    def pad_to_bucket(self, batch):
        """`batch`, on the host, with padding up to one of a few lengths: fewer to be recorded."""
        return batch


def without_padding(batch):
    """Leave out the last columns of ids and mask if they are all padding; mask None if none is."""
    columns = np.flatnonzero(batch["mask"].any(axis=0))
    n = int(columns[-1]) + 1 if columns.size else 1
    mask = batch["mask"][:, :n]
    return batch | {"ids": batch["ids"][:, :n], "mask": None if mask.all() else mask}


def with_padding(batch, longest):
    """More columns of padding: a multiple of LENGTH_BUCKET of them in all, at most `longest`."""
    n = batch["ids"].shape[1]
    more = min(longest, -(-n // LENGTH_BUCKET) * LENGTH_BUCKET) - n
    if more <= 0:
        return batch
    wider = {name: np.pad(batch[name], ((0, 0), (0, more))) for name in ("ids", "mask")}
    return batch | wider


def through_blocks(blocks, params, x, context):
    """x (B, n, d) through one block after the other and a last layer norm: (out, back).

    block(params, x, context) -> y, back, where back(dy) gives dx and a dict of gradients; the
    parameters of the first stand under "blocks.0." in `params`, the norm's under "norm.".
    back(dout, grads) adds into grads and returns dx.
    """
    backs = []
    for i, block in enumerate(blocks):
        x, back_block = block(params.group(f"blocks.{i}"), x, context)
        backs.append(back_block)
    out, back_norm = layer_norm(x, params["norm.gain"], params["norm.bias"])

    def back(dout, grads):
        dx, dgain, dbias = back_norm(dout)
        grads["norm.gain"] += dgain
        grads["norm.bias"] += dbias
        for i in reversed(range(len(backs))):
            dx, dparams = backs[i](dx)
            for name, gradient in dparams.items():
                grads[f"blocks.{i}.{name}"] += gradient
        return dx

    return out, back
