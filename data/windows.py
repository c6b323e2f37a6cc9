"""From token sequences to a language model's batches: what is read, and what comes next.

Packed, documents follow each other without padding, each after a separator token, and the stream
is cut into windows of n tokens. As rows, each text is an example of its own, cut to n and padded.
"""

import numpy as np

from minisum.text.batches import Ragged, pad

NOT_COUNTED = -1


class PackedWindows:
    """Windows of n tokens over separator, document, separator, document, ..., separator.

    Every token of every document, and the separator after it, is a target once, predicted from
    what precedes it in the window. Only the last window may be shorter, and is padded.
    With `reset` a batch also says where documents begin: at the separator before them.
    """

    def __init__(self, documents: Ragged, n: int, separator: int, reset=False):
        self.n, self.separator, self.reset = n, separator, reset
        places = documents.offsets[:-1]
        stream = np.append(np.insert(documents.flat, places, separator), separator)
        self.stream = stream.astype(np.int32)

    @property
    def targets(self):
        """How many targets there are."""
        return len(self.stream) - 1

    def __len__(self):
        return -(-self.targets // self.n)

    def take(self, windows):
        """The batch of these windows: ids (B, n), targets (B, n), and starts (B, n) with reset."""
        places = np.asarray(windows)[:, None] * self.n + np.arange(self.n)
        real = places < self.targets
        ids = np.where(real, self.stream[np.minimum(places, self.targets)], 0)
        following = self.stream[np.minimum(places + 1, self.targets)]
        batch = {"ids": ids, "targets": np.where(real, following, NOT_COUNTED)}
        return batch | {"starts": real & (ids == self.separator)} if self.reset else batch


class RowWindows:
    """One text a row: its first n + 1 tokens, of which each but the first is a target.

    Texts of fewer than two tokens are left out. Rows are as long as the longest of their batch.
    """

    def __init__(self, texts: Ragged, n: int):
        texts = texts.take(np.flatnonzero(texts.lengths >= 2))
        self.n, self.texts = n, texts.truncate(n + 1)

    @property
    def targets(self):
        """How many targets there are."""
        return len(self.texts.flat) - len(self.texts)

    def __len__(self):
        return len(self.texts)

    def take(self, rows):
        """The batch of these rows: ids (B, n), targets (B, n), padded on the right."""
        tokens, mask = pad(self.texts.take(rows), self.n + 1)
        ids, targets, real = tokens[:, :-1], tokens[:, 1:], mask[:, 1:]
        return {"ids": np.where(real, ids, 0), "targets": np.where(real, targets, NOT_COUNTED)}
