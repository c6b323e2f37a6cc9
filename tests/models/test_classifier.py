"""The classifiers as wholes: their gradients, and what padding, order and scale must not change."""

import numpy as np
import pytest
from conftest import XP
from hypothesis import given
from text_models import (
    assert_backward_adds,
    assert_writes_to_nothing,
    gradient,
    host,
    one_of,
    text_batch,
)

from minisum import backend, ops
from minisum.errors import UserError
from minisum.gradcheck import gradcheck, loss_op
from minisum.models import classifier
from minisum.models.bag import RATE, bag_ids, bag_shares
from minisum.params import Params, flatten
from minisum.strategies import cases

MIXERS = list(classifier.MODELS)
POOLINGS = list(classifier.POOLING)
POSITIONAL = ["summation", "attention"]


def build(mixer, V=7, d=4, C=3, n=9, **options):
    return classifier.build(mixer, V, d, C, n, heads=2, **options)


def parameters(model, seed=0, scale=1.0):
    """All arrays drawn from a normal distribution: no zeros, no small numbers to hide behind."""
    rng = np.random.default_rng(seed)
    drawn = flatten(model.init(rng))
    arrays = {name: rng.normal(0, scale, a.shape) for name, a in drawn.items()}
    return Params.from_arrays(arrays, XP, "float64")


def make_batch(model, lengths, n, seed=0, noise=True):
    def rest(rng, B):
        return {"targets": rng.integers(0, model.classes, B).astype(np.int32)}

    return text_batch(model, lengths, n, rest, seed, noise)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_gradient_of_the_whole_model(mixer, pooling, masked, dropout):
    """Along a random direction of the flat vector and along 30 of its entries.

    The seeds are fixed, and at them no ReLU turns over within a step of the difference.
    """
    model = build(mixer, pooling=pooling, masked=masked, dropout=dropout)
    params = parameters(model, seed=2)
    batch = make_batch(model, [4, 1, 0], n=4, seed=1)
    used = params.zeros_like()
    model.loss(params, batch, 3)[1](used)
    assert gradcheck(loss_op(model, params, batch), params.vector, entries=30, seed=4)
    for name, g in used.flat.items():
        assert host(g).any(), name


@pytest.mark.parametrize("options", [
    {"positions": "add"}, {"positions": "multiply", "position_offset": 2.0}, {"bag_rows": 5},
    {"bag_rows": 5, "one_logit": True, "C": 2}, {"one_logit": True, "C": 2},
])  # fmt: skip
@pytest.mark.parametrize("mixer", MIXERS)
def test_gradient_with_options(mixer, options):
    """Tokens dropped too, the same seeds as above."""
    model = build(mixer, token_dropout=0.3, dropout=0.3, **options)
    params, batch = parameters(model, seed=2), make_batch(model, [4, 3, 0], n=4, seed=1)
    assert gradcheck(loss_op(model, params, batch), params.vector, entries=30, seed=4)
    used = params.zeros_like()
    model.loss(params, batch, 3)[1](used)
    for name, g in used.flat.items():
        assert host(g).any(), name


def test_two_classes_may_share_a_logit():
    """Its sigmoid is the probability of the second, and its loss the binary cross-entropy."""
    model = build("summation", C=2, one_logit=True)
    params, batch = parameters(model), make_batch(model, [4, 3], n=4)
    assert params["head"]["W"].shape == (1, 4) and build("summation", one_logit=True).outputs == 3
    logits = model.predict(params, batch)
    z, targets = logits[:, 1], XP.asarray(batch["targets"]).astype("float64")
    assert not host(logits[:, 0]).any()
    expected = ops.binary_cross_entropy(z, targets)[0]
    loss, _ = model.loss(params, batch, 2)
    np.testing.assert_allclose(host(loss), host(expected), rtol=1e-12)


def by_hand(first, second):
    """SplitMix of two words, in Python's own integers."""
    x = (first << 24) + second
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    return ((x ^ x >> 27) * 0x94D049BB133111EB % 2**64) >> 31


def test_the_bag_starts_silent_and_is_a_sum_of_votes():
    plain, model = build("summation"), build("summation", bag_rows=16)
    drawn = model.init(np.random.default_rng(0))
    assert drawn["bag"].shape == (7 + 16, 3) and not drawn["bag"].any()
    params, batch = parameters(model), make_batch(model, [4, 2, 1, 0], n=4, noise=False)
    votes = host(model.predict(params, batch) - plain.predict(params, batch))
    ids, mask, table = host(batch["ids"]), host(batch["mask"]), host(params["bag"])
    for b, length in enumerate((4, 2, 1, 0)):
        words = [table[i] for i in ids[b, :length]]
        rows = [7 + by_hand(int(a), int(c)) % 16
                for a, c in zip(ids[b, :length], ids[b, 1:length], strict=False)]  # fmt: skip
        count = length + max(length - 1, 0)
        expected = RATE * sum(words + [table[r] for r in rows], np.zeros(3)) / max(count, 1) ** 0.5
        np.testing.assert_allclose(votes[b], expected, rtol=1e-10)
    shares = host(bag_shares(params["bag"], batch["ids"], batch["mask"], 7))
    np.testing.assert_allclose(shares.sum(axis=1), votes, rtol=1e-10)
    assert not shares[~mask].any()


def test_the_bag_learns_by_itself():
    """The loss is the sum's and the bag's, each as if the other were not there."""
    model = build("summation", bag_rows=16)
    params, batch = parameters(model), make_batch(model, [4, 2, 3], n=4)

    def without(*names):
        muted = params.zeros_like()
        muted.vector[...] = params.vector
        for name in names:
            muted.flat[name][...] = 0
        return host(model.loss(muted, batch, 3)[0])

    silent = np.log(model.classes)  # the loss of equal logits
    head, bag = without("bag") - silent, without("head.W", "head.b") - silent
    np.testing.assert_allclose(host(model.loss(params, batch, 3)[0]), head + bag, rtol=1e-10)


def test_pairs_spread_over_the_rows():
    """A thousand words in every order meet about as rarely as if rows were drawn at random."""
    ids = np.stack(np.meshgrid(np.arange(1000), np.arange(1000)), -1).reshape(-1, 2)
    rows = 2**20
    pairs = bag_ids(ids.astype(np.int32), None, 1000, rows)[0][:, 2]
    assert pairs.min() >= 1000 and pairs.max() < 1000 + rows
    used = len(np.unique(pairs)) / rows
    assert abs(used - (1 - np.exp(-1e6 / rows))) < 0.05


def grid_params(model, case):
    arrays = flatten(model.init(np.random.default_rng(0)))
    return {name: case.grid(" ".join(map(str, a.shape))) for name, a in arrays.items()}


@pytest.mark.parametrize("name", ["embedding", "positions", "project.W"])
@given(case=cases(XP, B=(1, 3), n=(1, 5), V=(2, 5), d=(1, 4)))
def test_gradient_of_summation_is_exact(name, case):
    """Piecewise linear in each of its parameters: `==`, kinks apart."""
    model = build("summation", V=case.V, d=case.d, n=case.n + 1)
    arrays = grid_params(model, case)
    ids, mask = case.ids("B n", case.V), case.mask()

    def features(changed):
        params = Params.from_arrays(arrays | {name: host(changed)}, XP, "float64")
        y, back_features = model.features(params, ids, mask)

        def back(dy):
            grads = params.zeros_like()
            back_features(dy, grads)
            return grads.flat[name]

        return y, back

    verdict = gradcheck(features, arrays[name], exact=True, seed=case.seed)
    assert not verdict.mismatches, verdict


@pytest.mark.parametrize("mixer", MIXERS)
def test_backward_adds(mixer):
    model = build(mixer)
    assert_backward_adds(model, parameters(model), make_batch(model, [3, 5], n=5))


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_loss_leaves_the_parameters_alone(mixer):
    model = build(mixer, dropout=0.5)
    assert_writes_to_nothing(model, parameters(model), make_batch(model, [3, 5], n=5))


# Padding


def logits_and_gradient(model, params, batch):
    return host(model.predict(params, batch)), gradient(model, params, batch)


def assert_same_model(a, b, atol=1e-12):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_what_stands_in_the_padding_does_not_matter(mixer, pooling):
    """Not to a bit of the logits; in the embedding's gradient, padding's zeros join other sums."""
    model = build(mixer, pooling=pooling)
    params = parameters(model)
    batch = make_batch(model, [3, 0, 6, 1], n=6)
    other = dict(batch)
    other["ids"] = XP.where(batch["mask"], batch["ids"], (batch["ids"] + 3) % model.vocab)
    a, b = (logits_and_gradient(model, params, x) for x in (batch, other))
    np.testing.assert_array_equal(a[0], b[0])
    assert_same_model(a, b, atol=1e-13)


@pytest.mark.parametrize("mixer", MIXERS)
def test_published_padding_is_summed(mixer):
    """masked=False looks at no mask; so what stands in the padding does matter."""
    model = build(mixer, masked=False)
    params = parameters(model)
    batch = make_batch(model, [3, 2], n=6)
    everything = batch | {"mask": batch["mask"] | True}
    a, b = (logits_and_gradient(model, params, x) for x in (batch, everything))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    masked = logits_and_gradient(build(mixer), params, batch)
    assert np.abs(a[0] - masked[0]).min() > 1e-3
    assert_same_model(a, logits_and_gradient(build(mixer), params, everything))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_padding_on_the_right_changes_nothing(mixer, pooling):
    model = build(mixer, pooling=pooling)
    params = parameters(model)
    batch = make_batch(model, [3, 0, 5], n=5)
    longer = dict(batch)
    longer["ids"] = XP.concatenate([batch["ids"], batch["ids"][:, :4]], axis=1)
    longer["mask"] = XP.concatenate([batch["mask"], XP.zeros((3, 4), bool)], axis=1)
    assert_same_model(*(logits_and_gradient(model, params, x) for x in (batch, longer)))


@pytest.mark.parametrize("mixer", MIXERS)
def test_padding_on_the_left_moves_positions_and_nothing_else(mixer):
    model = build(mixer)
    params = parameters(model)
    batch = make_batch(model, [3, 4], n=5)
    shifted = dict(batch)
    shifted["ids"] = XP.concatenate([batch["ids"][:, :4], batch["ids"]], axis=1)
    shifted["mask"] = XP.concatenate([XP.zeros((2, 4), bool), batch["mask"]], axis=1)
    plain, moved = (host(model.predict(params, x)) for x in (batch, shifted))
    if mixer in POSITIONAL:
        assert np.abs(plain - moved).min() > 1e-3
        positions = host(params["positions"]).copy()
        params["positions"][4:] = XP.asarray(positions[:5])
        moved = host(model.predict(params, shifted))
        params["positions"][...] = XP.asarray(positions)
    np.testing.assert_allclose(plain, moved, atol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_a_text_alone_equals_itself_in_a_batch(mixer, pooling):
    model = build(mixer, pooling=pooling)
    params = parameters(model)
    batch = make_batch(model, [3, 0, 5, 1], n=5)
    together, whole = logits_and_gradient(model, params, batch)
    alone = params.zeros_like()
    for b, length in enumerate([3, 0, 5, 1]):
        one = one_of(batch, b, length)
        np.testing.assert_allclose(host(model.predict(params, one))[0], together[b], atol=1e-12)
        model.loss(params, one, 4)[1](alone)
    np.testing.assert_allclose(host(alone.vector), whole, atol=1e-12)


@pytest.mark.parametrize("columns", [0, 3])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_a_text_of_no_token(mixer, pooling, columns):
    """Its features are zero: the head's bias decides, and only it learns."""
    model = build(mixer, pooling=pooling)
    params = parameters(model)
    batch = make_batch(model, [0, 0], n=columns)
    logits = host(model.predict(params, batch))
    np.testing.assert_array_equal(logits, np.stack([host(params["head"]["b"])] * 2))
    grads = params.zeros_like()
    model.loss(params, batch, 2)[1](grads)
    assert {name for name, g in grads.flat.items() if host(g).any()} == {"head.b"}


# What the sum promises


@given(case=cases(XP, B=(1, 3), n=(2, 8)))
def test_a_text_is_the_sum_of_its_parts(case):
    """At their places in the whole text, features of a beginning and of the rest add up."""
    model = build("summation", n=8)
    params = parameters(model, case.seed)
    ids = case.ids("B n", model.vocab)
    first = np.arange(case.n) < case.rng.integers(0, case.n + 1, (case.B, 1))
    whole, begin, rest = (
        host(model.features(params, ids, m)[0])
        for m in (None, XP.asarray(first), XP.asarray(~first))
    )
    np.testing.assert_allclose(whole, begin + rest, rtol=1e-13, atol=1e-12)


@given(case=cases(XP, B=(1, 3), n=(1, 8)))
def test_twice_the_embedding_is_twice_the_features(case):
    """relu(W (cE ⊙ P)) = c relu(W (E ⊙ P)) for c > 0: to the bit when c is a power of two."""
    model = build("summation", n=8)
    params = parameters(model, case.seed)
    ids, mask = case.ids("B n", model.vocab), case.mask()
    once = host(model.features(params, ids, mask)[0])
    for name in ("embedding", "project.W"):
        params.flat[name] *= 4
        np.testing.assert_array_equal(host(model.features(params, ids, mask)[0]), 4 * once)
        params.flat[name] /= 4


@given(case=cases(XP, B=(1, 3), n=(1, 8)))
def test_without_positions_order_does_not_matter(case):
    ids, order = case.ids("B n", 7), case.rng.permutation(case.n)
    for mixer in MIXERS:
        model = build(mixer)
        params = parameters(model, case.seed)
        if mixer in POSITIONAL:
            params["positions"][...] = 0.5
        batch = {"ids": ids, "mask": case.mask()}
        moved = {name: a[:, order] for name, a in batch.items()}
        np.testing.assert_allclose(
            host(model.predict(params, moved)), host(model.predict(params, batch)), atol=1e-11
        )


@pytest.mark.parametrize("mixer", POSITIONAL)
def test_with_positions_order_matters(mixer):
    model = build(mixer)
    params = parameters(model)
    batch = make_batch(model, [5], n=5)
    moved = batch | {"ids": batch["ids"][:, ::-1]}
    assert abs(host(model.predict(params, batch)) - host(model.predict(params, moved))).min() > 1e-3


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_word_met_twice_is_owed_both_gradients(mixer):
    """Tied and untied: one row read at two places gets the sum of two rows read once each."""
    model = build(mixer, d=8)
    params = parameters(model)
    params["embedding"][1] = params["embedding"][0]
    batch = make_batch(model, [2], n=2)
    gradients = []
    for ids in ([[0, 0]], [[0, 1]]):
        grads = params.zeros_like()
        model.loss(params, batch | {"ids": XP.asarray(ids)}, 1)[1](grads)
        gradients.append(host(grads["embedding"]))
    tied, untied = gradients
    np.testing.assert_allclose(tied[0], untied[0] + untied[1], atol=1e-14)
    assert not tied[1:].any() and untied[:2].any(axis=1).all()


# Dropout, sizes, names


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_dropped_token_was_never_written(mixer):
    """token_dropout takes tokens out of the mask, and only there, and never in predictions."""
    model = build(mixer, token_dropout=0.5)
    params = parameters(model)
    batch = make_batch(model, [5, 3, 0], n=5, seed=3)
    whole = make_batch(model, [5, 3, 0], n=5, seed=3, noise=False)
    dropped, real = host(batch["mask"]), host(whole["mask"])
    assert not (dropped & ~real).any() and 0 < dropped.sum() < real.sum()
    plain = build(mixer)
    assert float(model.loss(params, batch, 3)[0]) == float(plain.loss(params, batch, 3)[0])
    np.testing.assert_array_equal(
        host(model.predict(params, whole)), host(plain.predict(params, whole))
    )
    published = build(mixer, masked=False, token_dropout=0.5)
    noise = published.noise(np.random.default_rng(0), {name: host(a) for name, a in whole.items()})
    assert noise["mask"][~real].any()
    loss, _ = published.loss(params, whole | backend.to_device(noise, XP), 3)
    assert float(loss) == float(plain.loss(params, whole | backend.to_device(noise, XP), 3)[0])


@pytest.mark.skipif(XP is not np, reason="shards are trimmed on the host only")
@pytest.mark.parametrize("lengths, columns", [([3, 1], 3), ([0, 0], 1), ([5, 0], 5), ([2, 2], 2)])
def test_trimming_changes_nothing_but_time(lengths, columns):
    for mixer in MIXERS:
        model = build(mixer)
        params = parameters(model)
        batch = make_batch(model, lengths, n=5)
        trimmed = model.trim_padding(batch)
        assert trimmed["ids"].shape == (2, columns)
        assert (
            trimmed["mask"] is None if lengths == [2, 2] else trimmed["mask"].shape == (2, columns)
        )
        assert_same_model(*(logits_and_gradient(model, params, b) for b in (batch, trimmed)))
        published = build(mixer, masked=False)
        assert published.trim_padding(batch)["ids"].shape == (2, 5)


def test_dropout_forgets_features_in_training_only():
    model = build("summation", dropout=0.5)
    params = parameters(model)
    batch = make_batch(model, [4, 4], n=4)
    assert host(batch["keep"]).shape == (2, 4)
    plain = {name: a for name, a in batch.items() if name != "keep"}
    np.testing.assert_array_equal(
        host(model.predict(params, batch)), host(model.predict(params, plain))
    )
    nothing = batch | {"keep": XP.zeros((2, 4), bool)}
    loss, back = model.loss(params, nothing, 2)
    grads = params.zeros_like()
    back(grads)
    assert {name for name, g in grads.flat.items() if host(g).any()} == {"head.b"}
    assert build("summation").noise(np.random.default_rng(0), plain) == {}


@pytest.mark.parametrize("mixer", MIXERS)
def test_first_values(mixer):
    model = build(mixer, V=50, d=8)
    arrays, again = (flatten(model.init(np.random.default_rng(0))) for _ in range(2))
    assert all((arrays[name] == again[name]).all() for name in arrays)
    assert arrays["embedding"].shape == (50, 8) and np.abs(arrays["embedding"]).max() <= 0.05
    assert arrays["head.W"].shape == (3, 8) and not arrays["head.b"].any()
    assert np.abs(arrays["head.W"]).max() <= np.sqrt(6 / 11)


def test_default_poolings():
    assert [build(m).power for m in MIXERS] == [0.0, 1.0, 1.0]
    assert [build("summation", pooling=p).power for p in ("sum", "sqrt", "mean")] == [0, 0.5, 1]


def test_an_unknown_mixer_is_the_users_error():
    with pytest.raises(UserError, match="unknown mixer 'sum': choose one of summation, attention"):
        build("sum")
