"""Words over groups: the tables are groups, the answers are their products, and nothing gives the
answer away."""

import numpy as np
import pytest

from data.generated.state_tracking import GROUPS, StateTracking, product_table
from minisum.errors import UserError

SIZES = {"parity": 2, "modular": 5, "S3": 6, "A5": 60, "S5": 120}


@pytest.mark.parametrize("name", GROUPS)
def test_the_tables_are_groups(name):
    """Closed, with 0 as the identity, with inverses, and associative."""
    table = product_table(GROUPS[name][0]())
    m = SIZES[name]
    assert table.shape == (m, m) and np.array_equal(np.unique(table), np.arange(m))
    assert np.array_equal(table[0], np.arange(m)) and np.array_equal(table[:, 0], np.arange(m))
    for lines in (table, table.T):
        assert np.array_equal(np.sort(lines, axis=1), np.broadcast_to(np.arange(m), (m, m)))
    assert all(np.array_equal(table[table[x]], table[x][table]) for x in range(m))


def test_which_groups_are_commutative():
    tables = {name: product_table(elements()) for name, (elements, _) in GROUPS.items()}
    commutative = [name for name, table in tables.items() if np.array_equal(table, table.T)]
    assert commutative == ["parity", "modular"]
    squares = np.diagonal(tables["A5"])
    assert {(squares == 0).sum(), (np.diagonal(tables["S5"]) == 0).sum()} == {16, 26}


@pytest.mark.parametrize("name", GROUPS)
def test_every_answer_is_the_product_so_far(name):
    """Computed here by moving things, not by the table."""
    source = StateTracking(name, length=9)
    orders = GROUPS[name][0]()
    batch = source.draw(np.random.default_rng(0), 20)
    assert np.array_equal(batch["places"], np.broadcast_to(np.arange(1, 10), (20, 9)))
    assert not batch["ids"][:, 0].any() and batch["ids"][:, 1:].min() > 0
    for word, targets in zip(batch["ids"], batch["targets"], strict=True):
        things = np.arange(orders.shape[1])
        for letter, target in zip(word[1:], targets, strict=True):
            things = orders[letter - 1][things]
            assert np.array_equal(things, orders[target - 1])


def test_parity_and_moves_on_a_circle():
    batch = StateTracking("parity", 30).draw(np.random.default_rng(0), 50)
    ones = (batch["ids"][:, 1:] == 2).cumsum(axis=1)
    assert np.array_equal(batch["targets"], 1 + ones % 2)
    batch = StateTracking("modular", 30).draw(np.random.default_rng(0), 50)
    moves = batch["ids"][:, 1:] - 1
    assert set(moves.flat) == {0, 1, 4}
    assert np.array_equal(batch["targets"], 1 + moves.cumsum(axis=1) % 5)


def test_words_of_several_lengths_are_asked_at_their_end():
    source = StateTracking("parity", 12, min_length=3, last=True)
    batch = source.draw(np.random.default_rng(0), 4000)
    ids, ends = batch["ids"], batch["places"][:, 0]
    assert ids.shape == (4000, 13) and batch["targets"].shape == (4000, 1)
    assert np.array_equal((ids > 0).sum(axis=1), ends)
    counts = np.bincount(ends, minlength=13)
    assert not counts[:3].any() and abs(counts[3:] - 400).max() < 5 * 20
    assert np.array_equal(batch["targets"][:, 0], 1 + (ids == 2).sum(axis=1) % 2)
    full = StateTracking("parity", 12, last=True).draw(np.random.default_rng(0), 5)
    assert np.array_equal(full["places"], np.full((5, 1), 12))


def test_letters_and_answers_are_uniform_and_of_the_seed_alone():
    for name, m in SIZES.items():
        source = StateTracking(name, 40)
        batch, again = (source.draw(np.random.default_rng(3), 400) for _ in range(2))
        assert all(np.array_equal(batch[key], again[key]) for key in batch)
        assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}
        for tokens in (batch["ids"][:, 1:], batch["targets"][:, 20:]):
            counts = np.bincount(tokens.reshape(-1), minlength=m + 1)[1:]
            counts = counts[counts > 0] if name == "modular" else counts
            mean = counts.mean()
            assert abs(counts - mean).max() < 5 * np.sqrt(mean)


def test_refusals():
    for settings, reason in (
        ({"group": "S4"}, "group 'S4': choose one of"),
        ({"length": 4, "min_length": 5, "last": True}, "not 5, 4"),
        ({"length": 4, "min_length": 0, "last": True}, "not 0, 4"),
        ({"length": 4, "min_length": 2}, "last place only"),
    ):
        with pytest.raises(UserError, match=reason):
            StateTracking(**settings)
