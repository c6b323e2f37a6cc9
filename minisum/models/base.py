"""What the training loop and the shards need of every model, with defaults."""

import numpy as np

from minisum.ops.dropout import draw_keep


class Model:
    """Base of the models. Subclasses define `init`, `loss` and `predict`."""

    def noise(self, rng, batch):
        """Extra arrays that a training batch needs, drawn on the host: none without dropout."""
        return {}

    def count_targets(self, batch):
        """How many targets the loss of a batch is the mean over."""
        return batch["targets"].size

    def activation_size(self, batch):
        """How many numbers one layer's array holds for one example: what shards are sized by."""
        return batch["ids"].shape[1] * self.width

    def order(self, batch):
        """The order in which a batch's examples, on the host, are cut into shards; None: theirs."""

    def trim_padding(self, batch):
        """`batch`, a shard on the host, without columns that are padding only."""
        return batch

    def prepare(self, batch, xp, whole=True):
        """`batch`, on the host, as it is to be moved to `xp`. whole: it is not cut there."""
        return batch


class Unlearned(Model):
    """A model with nothing to train: a training loop only evaluates it."""

    width = 1

    def init(self, rng):
        return {}

    def loss(self, params, batch, total):
        return 0.0, lambda grads: None


class TextModel(Model):
    """Reads padded texts: a batch holds ids (B, n) integer, mask (B, n) bool, targets (B,).

    dropout, token_dropout: rates at which training drops `dropout_width` features of a text, and
    whole tokens, as if they were not in the text. masked=False treats padding like words.
    packs: whether tokens interact only in a sum, which takes packed texts (minisum.packing).
    """

    masked, dropout, token_dropout, packs = True, 0.0, 0.0, False

    def noise(self, rng, batch):
        """What a training batch drops: which features stay, and a mask with fewer tokens."""
        noise = {}
        if self.dropout:
            noise["keep"] = draw_keep(rng, (len(batch["ids"]), self.dropout_width), self.dropout)
        if self.token_dropout:
            kept = draw_keep(rng, batch["ids"].shape, self.token_dropout)
            noise["mask"] = kept & batch["mask"] if self.masked else kept
        return noise

    def order(self, batch):
        """By length, so that little padding is left; packed texts have none."""
        if self.packs or not self.masked:
            return None
        return np.argsort((batch["mask"] * np.arange(1, 1 + batch["mask"].shape[1])).max(axis=1))

    def trim_padding(self, batch):
        """The mask is None if there is no padding left."""
        if not self.masked:
            return batch
        columns = np.flatnonzero(batch["mask"].any(axis=0))
        n = int(columns[-1]) + 1 if columns.size else 1
        mask = batch["mask"][:, :n]
        return batch | {"ids": batch["ids"][:, :n], "mask": None if mask.all() else mask}

    def prepare(self, batch, xp, whole=True):
        if xp is np:
            return batch
        from minisum.packing import pack_texts, pad_texts

        fit = pack_texts if self.packs and whole else pad_texts
        return fit(batch, self.max_len, self.masked)
