"""A linear bag of words and pairs of words, each of which votes for the classes directly.

    votes = (Σ_t table[ids[t]] + Σ_t table[V + hash(ids[t], ids[t+1])]) / √c

c counts the words and the pairs of the text. A vote is a row of C numbers, initially zero: the bag
is a logistic regression on n-grams. It has its own loss, and its votes are added to the logits of
the model: two classifiers that make different errors. Pairs share R rows by a hash (Weinberger et
al. 2009, "Feature hashing for large scale multitask learning"). Trained in one loss with the model,
as in Cheng et al. 2016, "Wide & deep learning", it would learn only what the model leaves, which on
small data sets is nothing.
"""

import numpy as np

from minisum.backend import array_module
from minisum.ops import embed, mean_tokens

# Adam's steps do not depend on the size of a gradient: votes that count RATE times are learned as
# if at a rate RATE times as large.
RATE = 30.0
# Each round folds the high bits into the low ones and multiplies: Steele et al. 2014, SplitMix.
ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def rows_for(most, tokens):
    """How many rows, at most `most`, for texts of so many tokens: no more than they have pairs."""
    return min(most, 1 << int(tokens).bit_length())


def bag_ids(ids, mask, vocab, rows):
    """The rows that vote: ids (B, 2n - 1), words then pairs, and their mask, bool or None.

    A pair is real if both of its words are: one that dropout has removed, or padding, ends it.
    """
    xp = array_module(ids)
    wide = ids.astype(np.uint64)
    pairs = (wide[:, :-1] << np.uint64(24)) + wide[:, 1:]
    for shift, factor in ROUNDS:
        pairs = (pairs ^ (pairs >> np.uint64(shift))) * np.uint64(factor)  # modulo 2^64
    pairs = vocab + (pairs >> np.uint64(31)) % np.uint64(rows)
    both = xp.concatenate([ids, pairs.astype(ids.dtype)], axis=1)
    if mask is None:
        return both, None
    return both, xp.concatenate([mask, mask[:, :-1] & mask[:, 1:]], axis=1)


def bag_votes(table, ids, mask, vocab):
    """votes (B, C); back(dvotes) -> the gradient of table (V + R, C), a `RowGradient`."""
    rows, real = bag_ids(ids, mask, vocab, len(table) - vocab)
    votes, back_embed = embed(rows, table)  # (B, 2n - 1, C)
    total, back_mean = mean_tokens(votes, real, 0.5)
    return total * RATE, lambda dvotes: back_embed(back_mean(dvotes * RATE)[0])[1]


def bag_shares(table, ids, mask, vocab):
    """(B, n, C): what each token adds to the votes: its own, and half of each pair it is part of.

    They sum to the votes.
    """
    rows, real = bag_ids(ids, mask, vocab, len(table) - vocab)
    xp, n = array_module(ids), ids.shape[1]
    real = xp.ones(rows.shape, bool) if real is None else real
    votes = xp.where(real[:, :, None], embed(rows, table)[0], 0)
    words, halves = votes[:, :n].copy(), votes[:, n:] / 2
    words[:, :-1] += halves
    words[:, 1:] += halves
    return RATE * words / xp.sqrt(xp.maximum(real.sum(axis=1), 1))[:, None, None]
