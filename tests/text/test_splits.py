"""Rows to train on, to validate on, to test on: the same on every machine, and never both."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisum.errors import UserError
from minisum.text.splits import choose_subset, hold_out, hold_out_validation, text_key

quick = settings(deadline=None, max_examples=80)


@dataclass
class Numbered:
    """Examples that know which rows they were."""

    texts: list
    labels: np.ndarray
    rows: np.ndarray

    def take(self, rows):
        return Numbered([self.texts[i] for i in rows], self.labels[rows], self.rows[rows])


def split_validation(texts, labels, fraction, seed):
    """Indices (train, validation)."""
    examples = Numbered(list(texts), np.array(labels), np.arange(len(texts)))
    return [part.rows for part in hold_out_validation(examples, fraction, seed)]


labelled_texts = st.lists(
    st.tuples(st.text("abC \n", max_size=4), st.integers(0, 3)), min_size=1, max_size=60
)


@quick
@given(labelled_texts, st.floats(0.05, 0.9), st.integers(0, 5))
def test_a_split_never_leaks(pairs, fraction, seed):
    texts, labels = zip(*pairs, strict=True)
    try:
        train, held = split_validation(texts, labels, fraction, seed)
    except UserError:
        return
    assert sorted([*train, *held]) == list(range(len(texts)))
    assert len(train) and len(held)
    assert not {text_key(texts[i]) for i in train} & {text_key(texts[i]) for i in held}
    assert {labels[i] for i in train} == set(labels)


@quick
@given(labelled_texts, st.randoms(use_true_random=False))
def test_a_split_depends_on_content_alone(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    sides = []
    for rows in (pairs, shuffled):
        texts, labels = zip(*rows, strict=True)
        try:
            _, held = hold_out(texts, labels, 0.3, "salt")
        except UserError:
            held = []
        sides.append(sorted(rows[i] for i in held))
    assert sides[0] == sides[1]


def test_a_split_is_stratified_and_seeded():
    texts = [f"text {i}" for i in range(1000)]
    labels = np.repeat([0, 1, 2], [700, 250, 50])
    train, held = split_validation(texts, labels, 0.1, seed=0)
    assert np.bincount(labels[held]).tolist() == [70, 25, 5]
    again, other = (split_validation(texts, labels, 0.1, seed=s)[1] for s in (0, 1))
    assert np.array_equal(held, again)
    assert len(set(held) & set(other)) < 30
    assert [len(rows) for rows in split_validation(texts, labels, 0, 0)] == [1000, 0]
    for fraction in (1, -0.1, float("nan")):
        with pytest.raises(UserError):
            split_validation(texts, labels, fraction, 0)


def test_too_few_texts_to_split():
    with pytest.raises(UserError, match="too few"):
        hold_out(["a", "A ", "b"], [0, 0, 1], 0.2, "")


@quick
@given(st.integers(1, 120), st.integers(0, 3))
def test_a_subset_has_the_proportions_of_the_classes(size, seed):
    labels = np.repeat([0, 1, 2, 3], [60, 30, 20, 10])
    chosen = choose_subset(labels, size, seed)
    assert len(chosen) == len(set(chosen)) == size
    share = np.bincount(labels[chosen], minlength=4) - size * np.array([60, 30, 20, 10]) / 120
    assert np.abs(share).max() < 2
    assert np.array_equal(chosen, choose_subset(labels, size, seed))


def test_subsets():
    labels = np.arange(100) % 2
    assert choose_subset(labels, None, 0).tolist() == list(range(100))
    assert choose_subset(labels, 1000, 0).tolist() == list(range(100))
    assert not np.array_equal(choose_subset(labels, 10, 0), choose_subset(labels, 10, 1))
    with pytest.raises(UserError, match="at least 1"):
        choose_subset(labels, 0, 0)
