"""Copying, selective copying and induction: the answers stand in the text, once each, anywhere."""

import numpy as np
import pytest

from data.generated.copying import ASK, BLANK, KINDS, Copying
from minisum.errors import UserError


@pytest.mark.parametrize("kind", ["copying", "selective_copying"])
@pytest.mark.parametrize(("n", "N"), [(9, 4), (30, 4), (3, 1)])
def test_the_answers_are_the_letters_in_their_order(kind, n, N):
    batch = Copying(kind, vocab=7, length=n, letters=N).draw(np.random.default_rng(0), 200)
    ids, targets = batch["ids"], batch["targets"]
    assert ids.shape == (200, n) and targets.shape == (200, N)
    asked = n - N - 1
    assert (ids == ASK).sum() == 200 and (ids[:, asked] == ASK).all()
    assert (ids[:, asked + 1 :] == BLANK).all()
    assert np.array_equal(batch["places"], np.broadcast_to(np.arange(asked, n - 1), (200, N)))
    letters = [row[row > ASK] for row in ids[:, :asked]]
    assert np.array_equal(letters, targets)
    assert set(targets.flat) == set(range(2, 7))
    if kind == "copying":
        assert np.array_equal(ids[:, :N], targets)


def test_letters_are_copied_from_anywhere():
    """Each place before the question holds a letter equally often, the last one too."""
    source = Copying("selective_copying", vocab=4, length=25, letters=4)
    ids = source.draw(np.random.default_rng(0), 5000)["ids"]
    counts = (ids[:, :20] > ASK).sum(axis=0)
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000 * 0.8)


def test_induction_asks_for_what_came_after():
    batch = Copying("induction", vocab=6, length=12).draw(np.random.default_rng(0), 5000)
    ids, targets = batch["ids"], batch["targets"]
    assert (ids == ASK).sum() == 2 * 5000 and (ids[:, -1] == ASK).all() and not (ids == BLANK).any()
    assert (batch["places"] == 11).all()
    first = (ids == ASK).argmax(axis=1)
    assert np.array_equal(targets[:, 0], ids[np.arange(5000), first + 1])
    counts = np.bincount(first, minlength=12)
    assert not counts[10:].any() and abs(counts[:10] - 500).max() < 5 * np.sqrt(500)
    assert abs(np.bincount(targets[:, 0], minlength=6)[2:] - 1250).max() < 5 * np.sqrt(1250)


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_depends_on_the_seed_alone(kind):
    source = Copying(kind, length=40)
    batch, again = (source.draw(np.random.default_rng(3), 10) for _ in range(2))
    assert all(np.array_equal(batch[key], again[key]) for key in batch)
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}


def test_refusals():
    for settings, reason in (
        ({"kind": "recall"}, "'recall': choose one of"),
        ({"length": 8, "letters": 4}, "9 places at least, not 16, 4 and 8"),
        ({"kind": "induction", "length": 3}, "4 places"),
        ({"vocab": 2}, "not 2, 16 and 64"),
    ):
        with pytest.raises(UserError, match=reason):
            Copying(**settings)
