"""Token sequences of different lengths: stored end to end, padded batch by batch."""

from collections.abc import Iterator

import numpy as np

from minisum.errors import UserError


class Ragged:
    """Sequences in one flat array; sequence i is flat[offsets[i]:offsets[i + 1]].

    A corpus of N sequences with T tokens takes 4 T + 8 N bytes, without an object per sequence.
    """

    def __init__(self, flat: np.ndarray, offsets: np.ndarray):
        """flat (T,) int32; offsets (N + 1,) int64, ascending from 0 to T."""
        self.flat, self.offsets = flat, offsets

    @classmethod
    def from_list(cls, sequences) -> "Ragged":
        sequences = [np.asarray(sequence, np.int32) for sequence in sequences]
        flat = np.concatenate([np.zeros(0, np.int32), *sequences])
        return cls(flat, _offsets([len(sequence) for sequence in sequences]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Sequence `index` as a view."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        index %= len(self)
        return self.flat[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def take(self, indices) -> "Ragged":
        """The sequences at `indices`, in that order."""
        starts, ends = (self.offsets[edge][indices] for edge in (slice(-1), slice(1, None)))
        return self._gather(starts, ends - starts)

    def truncate(self, max_len: int, keep="first") -> "Ragged":
        """Every sequence cut to its first or last `max_len` tokens."""
        _check_choice("keep", keep, ("first", "last"))
        if len(self.flat) <= max_len or self.lengths.max(initial=0) <= max_len:
            return self
        lengths = np.minimum(self.lengths, max_len)
        starts = self.offsets[:-1] if keep == "first" else self.offsets[1:] - lengths
        return self._gather(starts, lengths)

    def _gather(self, starts, lengths):
        offsets = _offsets(lengths)
        shift = np.repeat(starts - offsets[:-1], lengths.astype(np.intp, copy=False))
        return Ragged(self.flat[shift + np.arange(offsets[-1])], offsets)


def pad(
    sequences, max_len: int, side="right", keep="first", pad_to: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """ids (B, n) int32 with 0 for padding, mask (B, n) bool with True for tokens.

    `sequences` is a Ragged or a list of int arrays. Longer ones are cut to their first (or last:
    `keep`) `max_len` tokens; the padding stands on `side`. n is the longest length left, or
    `pad_to`; at least 1, so that a batch of empty documents is a batch. UserError if they cannot
    fit.
    """
    _check_choice("side", side, ("left", "right"))
    if max_len < 1:
        raise UserError(f"the maximal length must be at least 1, not {max_len}")
    if pad_to is not None and pad_to < max_len:
        raise UserError(f"sequences of up to {max_len} tokens do not fit in {pad_to}")
    if not isinstance(sequences, Ragged):
        sequences = Ragged.from_list(sequences)
    cut = sequences.truncate(max_len, keep)
    lengths = cut.lengths[:, None]
    n = pad_to or int(lengths.max(initial=1))
    columns = np.arange(n)
    mask = columns < lengths if side == "right" else columns >= n - lengths
    ids = np.zeros(mask.shape, np.int32)
    ids[mask] = cut.flat
    return ids, mask


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of n examples in an epoch: a permutation that depends on nothing else."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def batches(order: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Consecutive parts of `order` with `batch_size` rows each; the last may have fewer."""
    if batch_size < 1:
        raise UserError(f"the batch size must be at least 1, not {batch_size}")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def check_ids(ids, vocab: int) -> None:
    """UserError unless every number in `ids`, a Ragged or an array with rows, is in 0..vocab - 1.

    CuPy wraps a bad index silently, so numbers are checked here, before they leave the host.
    """
    flat = ids.flat if isinstance(ids, Ragged) else np.asarray(ids).reshape(-1)
    bad = np.flatnonzero((flat < 0) | (flat >= vocab))
    if not bad.size:
        return
    if isinstance(ids, Ragged):
        row = np.searchsorted(ids.offsets, bad[0], side="right") - 1
    else:
        row = np.unravel_index(bad[0], np.shape(ids))[0]
    raise UserError(
        f"row {row} holds the token number {flat[bad[0]]}; a vocabulary of {vocab} ends "
        f"at {vocab - 1}"
    )


def _offsets(lengths):
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _check_choice(option, value, known):
    if value not in known:
        raise ValueError(f"{option} must be one of {known}, not {value!r}")
