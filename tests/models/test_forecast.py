"""The forecaster and its baselines: gradients, what a window may see, and series of all kinds."""

import math

import numpy as np
import pytest
from conftest import XP
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import assert_backward_adds, assert_writes_to_nothing

from data.reading import times
from data.sets import forecast
from data.sets.forecast import Series, Windows
from minisum import backend, mixers
from minisum.errors import UserError
from minisum.gradcheck import gradcheck, loss_op
from minisum.mixers import parse_pattern
from minisum.models.forecaster import NORMALISE, Forecaster
from minisum.models.series_baselines import LinearMap, Repeat
from minisum.params import Params, flatten
from train.forecast_baselines import by_column, error_sums, mse_and_mae

BIDIRECTIONAL = mixers.names(causal=False)


def host(x):
    return backend.to_numpy(x)


def build(layers="projection,attention", window=20, horizon=3, **options):
    sizes = {"width": 6, "heads": 2, "d_ff": 5, "patch": 6, "stride": 4}
    return Forecaster(window, horizon, layers, **{**sizes, **options})


def parameters(model, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {name: a.shape for name, a in flatten(model.init(rng)).items()}
    arrays = {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}
    return Params.from_arrays(arrays, XP, "float64")


def make_batch(model, B=2, C=2, seed=0, gaps=True):
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(B, model.horizon, C))
    if gaps:
        targets[0, 1, 0] = np.nan
    batch = {"windows": rng.normal(2, 3, (B, model.window, C)), "targets": targets}
    return backend.to_device(batch | model.noise(rng, batch), XP)


# The model


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("positions", ["multiply", "add"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_of_the_whole_model(normalise, positions, dropout):
    model = build(normalise=normalise, positions=positions, dropout=dropout)
    params, batch = parameters(model, 1), make_batch(model, seed=2)
    assert gradcheck(loss_op(model, params, batch), params.vector, entries=25, seed=3)
    used = params.zeros_like()
    model.loss(params, batch, model.count_targets(batch))[1](used)
    for name, g in used.flat.items():
        # A key's bias adds the same to all its comparisons, which a softmax does not notice.
        if not name.endswith("mixer.k.b"):
            assert host(g).any(), name


def test_gradient_with_dropped_attention_weights():
    for dropout in (0.0, 0.3):
        model = build(attention_dropout=0.4, dropout=dropout)
        params, batch = parameters(model, 1), make_batch(model, seed=2)
        assert batch["keep.1.weights"].shape == (2, 2 * 2 * 4, 4) and "keep.0.weights" not in batch
        assert gradcheck(loss_op(model, params, batch), params.vector, entries=25, seed=3)
        whole = batch | {"keep.1.weights": batch["keep.1.weights"] | True}
        without = {name: a for name, a in batch.items() if name != "keep.1.weights"}
        plain = build(dropout=dropout).loss(params, without, 11)[0]
        assert float(model.loss(params, batch, 11)[0]) != float(plain)
        scaled = build(attention_dropout=1e-12, dropout=dropout).loss(params, whole, 11)[0]
        assert float(scaled) == pytest.approx(float(plain), rel=1e-9)
    wide = build("projection,attention:head_width=5", attention_dropout=0.4)
    assert "keep.1.weights" in make_batch(wide) and wide.stack.blocks[1].mixer.dropout == 0.4


@pytest.mark.parametrize("mixer", BIDIRECTIONAL)
def test_gradient_with_every_mixer(mixer):
    """One layer of each; the seeds are fixed, away from the kinks of those that have any."""
    model = build(mixer, width=8)
    params, batch = parameters(model, 1), make_batch(model, seed=6)
    assert gradcheck(loss_op(model, params, batch), params.vector, entries=10, seed=3)


def test_backward_adds_and_writes_to_nothing():
    model = build(dropout=0.3, normalise="standard")
    params, batch = parameters(model), make_batch(model)
    assert_backward_adds(model, params, batch)
    assert_writes_to_nothing(model, params, batch)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**20), C=st.integers(1, 3))
def test_a_channel_alone_equals_itself_among_others(seed, C):
    model = build(normalise="standard")
    params, batch = parameters(model, seed), make_batch(model, 2, C, seed)
    together = host(model.predict(params, batch))
    for c in range(C):
        one = {"windows": batch["windows"][:1, :, c : c + 1]}
        np.testing.assert_allclose(
            host(model.predict(params, one))[0, :, 0], together[0, :, c], atol=1e-9
        )


@pytest.mark.parametrize(("normalise", "scale"), [("last", 1.0), ("standard", 5.0)])
def test_a_moved_window_is_a_moved_forecast(normalise, scale):
    """Freed of its level (and size), a window gives the same forecast in other units."""
    model = build(normalise=normalise)
    params, batch = parameters(model), make_batch(model)
    plain = host(model.predict(params, batch))
    moved = host(model.predict(params, {"windows": batch["windows"] * scale + 100}))
    np.testing.assert_allclose(moved, plain * scale + 100, rtol=1e-4)
    free = build(normalise="none")
    moved = host(free.predict(params, {"windows": batch["windows"] * scale + 100}))
    assert np.abs(moved - host(free.predict(params, batch)) * scale - 100).max() > 1


def test_a_gap_in_the_targets_counts_for_nothing():
    """Whole windows of gaps add no loss and no gradient, and nothing becomes NaN."""
    model = build()
    params, batch = parameters(model), make_batch(model, gaps=False)
    assert model.count_targets(batch) == 2 * 3 * 2
    gone = batch | {"targets": batch["targets"].copy()}
    gone["targets"][1] = np.nan
    assert model.count_targets(gone) == 6
    half = {name: a[:1] for name, a in batch.items()}
    for a, b in zip(*(gradient_and_loss(model, params, x) for x in (gone, half)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def gradient_and_loss(model, params, batch):
    grads = params.zeros_like()
    loss, back = model.loss(params, batch, model.count_targets(batch))
    back(grads)
    return float(loss), host(grads.vector)


def test_the_last_value_is_always_in_a_patch():
    for window in range(6, 30):
        for stride in (1, 3, 4, 6):
            index = build(window=window, stride=stride).index
            assert index[-1, -1] == window - 1 and 0 <= index[0, 0] < stride
            published = build(window=window, stride=stride, patches_from="start").index
            assert published.shape == index.shape and published[0, 0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 30}, "patches of 30 every 4 do not cover a window of 20"),
        ({"patch": 3}, "patches of 3 every 4"),
        ({"layers": "deltanet"}, "'deltanet' is no bidirectional mixer"),
        ({"layers": "attention*0"}, "'0' is not a number from 1 to 1024"),
        ({"heads": 4}, "4 heads do not divide"),
        ({"normalise": "both"}, "choose one of none, last, standard"),
        ({"positions": "no"}, "choose one of multiply, add"),
    ],
)
def test_what_cannot_be_built(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)


def test_patterns():
    names = parse_pattern("projection*2, attention", causal=False)
    assert names == ["projection", "projection", "attention"]


# The baselines


def test_repetitions():
    batch = {"windows": XP.arange(10.0).reshape(1, 10, 1)}
    for season, expected in ((1, [9] * 5), (3, [7, 8, 9, 7, 8]), (10, [0, 1, 2, 3, 4])):
        assert host(Repeat(10, 5, season).predict({}, batch)).ravel().tolist() == expected


@pytest.mark.parametrize("normalise", NORMALISE)
def test_the_linear_map_finds_a_linear_series(normalise):
    """A sum of two sines and a level follows a linear recurrence, which the map recovers."""
    t = np.arange(400)[:, None]
    values = np.sin(0.3 * t + np.arange(2)) + 0.5 * np.cos(0.7 * t) + 4
    series = Series("s", ("a", "b"), values)
    windows = Windows(series, "standard", 30, 5)
    model = LinearMap(30, 5, normalise)
    model.solution = model.solve(*model.moments([windows.batch("train", slice(None))]), 1e-10)
    batch = windows.batch("test", slice(None))
    forecast_ = model.predict(model.init(None), batch)
    assert np.abs(forecast_ - batch["targets"]).max() < (0.3 if normalise == "standard" else 0.02)
    grads = Params.from_arrays(model.init(None))
    grads.vector[...] = 0
    model.loss(model.init(None), batch, 1)[1](grads)
    assert not grads.vector.any()


@pytest.mark.parametrize("normalise", NORMALISE)
def test_the_linear_map_minimises_the_reported_loss(normalise):
    """Against all rows in one least-squares problem, each a row for every shrunk weight more."""
    rng = np.random.default_rng(0)
    batch = {"windows": rng.normal(3, 2, (9, 4, 2)), "targets": rng.normal(2, 2, (9, 3, 2))}
    batch["targets"][0, 0, 0] = np.nan
    batch["windows"][1] = 5  # flat: divided by its deviation, it would rule the fit
    model = LinearMap(4, 3, normalise)
    model.solution = W, b = model.solve(*model.moments([batch]), 0.3)
    x, y = (np.delete(a.transpose(0, 2, 1).reshape(18, -1), 0, axis=0) for a in batch.values())
    level, scale = {
        "none": (np.zeros((17, 1)), np.ones((17, 1))),
        "last": (x[:, -1:], np.ones((17, 1))),
        "standard": (x.mean(1, keepdims=True), x.std(1, keepdims=True) + 1e-5),
    }[normalise]
    rows = scale * np.concatenate([(x - level) / scale, np.ones((17, 1))], axis=1)
    shrunk = np.sqrt(0.3 * (scale**2).sum()) * np.eye(5)[:4]
    stacked = np.concatenate([rows, shrunk]), np.concatenate([y - level, np.zeros((4, 3))])
    direct = np.linalg.lstsq(*stacked, rcond=None)[0]
    np.testing.assert_allclose(np.concatenate([W.T, b[None]]), direct, rtol=1e-9, atol=1e-10)
    forecast_ = model.predict(model.init(None), batch).transpose(0, 2, 1).reshape(18, 3)[1:]
    np.testing.assert_allclose(forecast_, rows @ direct + level, rtol=1e-9)


def test_flat_stretches_do_not_rule_the_linear_map():
    """Windows that stand still and then jump: the loss over all windows decides, not theirs."""
    t = np.arange(600)
    values = np.sin(0.3 * t)
    values[200:260] = values[200]
    values[300:360] = values[300]
    windows = Windows(Series("s", ("a",), values[:, None]), "standard", 30, 5)
    model = LinearMap(30, 5, "standard")
    model.solution = model.solve(*model.moments([windows.batch("train", slice(None))]), 1e-6)
    batch = windows.batch("test", slice(None))
    off = model.predict(model.init(None), batch) - batch["targets"]
    assert np.square(off).mean() < 0.05


def test_moments_of_long_series_keep_their_digits():
    """Summed in float64: a level of 1000 would cost the differences in float32."""
    rng = np.random.default_rng(1)
    x = rng.normal(1000, 1, (4000, 3, 1)).astype(np.float32)
    batch = {"windows": x, "targets": (2 * x[:, :1] - x[:, 1:2]).astype(np.float32)}
    model = LinearMap(3, 1)
    W, _ = model.solve(*model.moments([batch]), 0)
    np.testing.assert_allclose(W, [[2, -1, 0]], atol=1e-4)


# Windows


def some_series(steps=200, columns=2, seed=0, **options):
    values = np.random.default_rng(seed).normal(5, 2, (steps, columns)).cumsum(axis=0)
    return Series("s", tuple("abcdef"[:columns]), values, **options)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**20),
    split=st.sampled_from(forecast.SPLITS),
    separate=st.booleans(),
    gaps=st.booleans(),
)
def test_the_future_changes_nothing_before_it(seed, split, separate, gaps):
    """Other values from a row on leave the scaler and every window that ends before it alone."""
    rng = np.random.default_rng(seed)
    series = some_series(seed=seed)
    if gaps:
        series.values[rng.random(series.values.shape) < 0.2] = np.nan
    window, horizon = (int(n) for n in rng.integers(1, 10, 2))
    before = Windows(series, split, window, horizon, separate)
    row = int(rng.integers(before.ends[0], 200))
    changed = series.values.copy()
    changed[row:] = rng.normal(0, 1000, changed[row:].shape)
    after = Windows(Series("s", series.columns, changed), split, window, horizon, separate)
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.deviation, after.deviation)
    for name in before.firsts:
        shared = np.intersect1d(before.firsts[name], after.firsts[name])
        shared = shared[shared <= row]  # windows whose first target is this row or earlier
        a, b = (w.batch(name, np.isin(w.firsts[name], shared))["windows"] for w in (before, after))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("split", forecast.SPLITS)
def test_targets_never_leave_their_split(split, separate):
    """Counted on a series that says its own row number."""
    series = Series("s", ("a",), np.arange(300.0)[:, None])
    windows = Windows(series, split, 20, 7, separate)
    assert windows.ends == ((210, 240, 300) if split == "standard" else (180, 240, 300))
    begin = 0
    for name, end in zip(("train", "val", "test"), windows.ends, strict=True):
        batch = windows.batch(name, slice(None))
        rows = {key: a * windows.deviation + windows.mean for key, a in batch.items()}
        assert rows["targets"].min() >= begin - 1e-3 and rows["targets"].max() <= end - 1 + 1e-3
        np.testing.assert_allclose(rows["targets"][:, 0], rows["windows"][:, -1] + 1, atol=1e-3)
        # Every row that has a window before it is a target.
        first = begin + 20 if separate else max(begin, 20)
        np.testing.assert_allclose(rows["targets"].min(), first, atol=1e-3)
        np.testing.assert_allclose(rows["targets"].max(), end - 1, atol=1e-3)
        if separate:
            assert rows["windows"].min() >= begin - 1e-3
        begin = end


def test_the_published_months():
    values = np.zeros((17420, 1))
    assert forecast.split_ends(Series("ETTh1", ("OT",), values), "standard") == (8640, 11520, 14400)
    quarter = Series("ETTm2", ("OT",), np.zeros((69680, 1)))
    assert forecast.split_ends(quarter, "standard") == (34560, 46080, 57600)
    assert forecast.split_ends(quarter, "published") == (41808, 55744, 69680)


def test_gaps_are_filled_from_the_past_and_are_no_targets():
    series = some_series()
    nan = np.nan
    series.values[:3, 0] = nan
    series.values[50:55, 1] = nan
    windows = Windows(series, "standard", 10, 4)
    assert (windows.inputs[:3, 0] == 0).all()  # before the first value: the mean
    assert (windows.inputs[50:55, 1] == windows.inputs[49, 1]).all()
    assert np.isnan(windows.targets[50:55, 1]).all() and np.isfinite(windows.inputs).all()


def test_a_stretch_without_any_value_is_no_target():
    series = some_series()
    series.values[100:120] = np.nan
    windows = Windows(series, "standard", 10, 4)
    assert not np.isin(np.arange(100, 117), windows.firsts["train"]).any()
    assert np.isin([99, 117], windows.firsts["train"]).all()


def test_a_constant_column():
    series = some_series()
    series.values[:, 1] = 0.1
    windows = Windows(series, "standard", 10, 4)
    assert windows.deviation[1] == 1 and np.abs(windows.inputs[:, 1]).max() < 1e-6


def test_what_windows_refuse():
    series = some_series()
    with pytest.raises(UserError, match="too short: its train split has 140 rows, and a window of"):
        Windows(series, "standard", 138, 4)
    with pytest.raises(UserError, match="too short: its val split has 20 rows"):
        Windows(series, "standard", 10, 21)
    Windows(series, "standard", 100, 20)
    with pytest.raises(UserError, match="too short: its val split"):
        Windows(series, "standard", 100, 20, separate=True)
    series.values[:140, 1] = np.nan
    with pytest.raises(UserError, match="column 'b' has no value in the training rows"):
        Windows(series, "standard", 10, 4)


# Series


def read(rows, **options):
    return forecast.read_series(rows, "s.csv", **options)


def test_reading_a_series():
    rows = [
        {"date": "2024-01-01 00:00", "a": "1", "b": "2.5"},
        {"date": "2024-01-01 00:15", "a": "", "b": "NA"},
    ]
    series = read(rows)
    assert series.columns == ("a", "b") and series.time_column == "date"
    np.testing.assert_array_equal(series.values, [[1, 2.5], [math.nan] * 2])
    assert times.steps_in_a_day(series.times) == 96
    assert read(rows, columns=("b",)).values.shape == (2, 1)
    assert times.steps_in_a_day(["yesterday", "today"]) is None
    assert times.steps_in_a_day(["2024-01-01", "2024-01-02"]) is None


@pytest.mark.parametrize("first, second", [
    ("2016/7/1 0:00", "2016/7/1 1:00"), ("01.07.2016 00:00:00", "01.07.2016 01:00:00"),
    ("2016-07-01T00", "2016-07-01T01"), ("7/31/2016 0:00", "7/31/2016 1:00"),
    ("31/7/2016 0:00", "31/7/2016 1:00"),
])  # fmt: skip
def test_times_that_are_not_isos(first, second):
    series = read([{"date": first, "a": "1"}, {"date": second, "a": "2"}])
    assert times.steps_in_a_day(series.times) == 24
    with pytest.raises(UserError, match="does not come after"):
        read([{"date": second, "a": "1"}, {"date": first, "a": "2"}])


@pytest.mark.parametrize("first, second", [("7/1/2016", "7/2/2016"), ("week 1", "week 2")])
def test_times_that_are_not_understood_are_refused(first, second):
    """Is it the first of July or the seventh of January? One later row may tell."""
    rows = [{"date": first, "a": "1"}, {"date": second, "a": "2"}]
    with pytest.raises(UserError, match=f"row 1: its time {first} can be read in no way"):
        read(rows)
    if first != "week 1":
        assert read([*rows, {"date": "7/13/2016", "a": "3"}]).times[1] == "2016-07-02 00:00:00"
    renamed = [{"when": row["date"], "a": row["a"]} for row in rows]
    assert read(renamed, columns=("a",)).times is None


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"date": "2024-01-02", "a": "1,5"}, {}, "row 2, column 'a': '1,5' is not a number"),
        ({"date": "2024-01-02", "a": "inf"}, {}, "row 2, column 'a': 'inf' is too large"),
        ({"date": "2024-01-01", "a": "1"}, {}, "row 2: its time 2024-01-01 does not come after"),
        ({"date": "2024-01-02", "a": "1"}, {"columns": ("z",)}, "no column 'z'"),
        ({"date": "2024-01-02", "a": "1"}, {"columns": ("a", "a")}, "named twice"),
        ({"date": "2024-01-02", "a": "1"}, {"time_column": "when"}, "no column 'when'"),
    ],
)
def test_a_bad_series_is_named(row, options, message):
    with pytest.raises(UserError, match=message):
        read([{"date": "2024-01-01", "a": "1"}, row], **options)


def test_the_generated_series_is_what_it_says():
    series = forecast.load_series()
    assert series.sha256 == forecast.load_series().sha256
    load, heat, _, drift = series.values.T
    # heat follows load by six hours; drift's changes are noise of 0.1.
    detrended = heat[6:] + 0.0006 * np.arange(6, 5000)
    assert np.corrcoef(detrended, load[:-6])[0, 1] > 0.75
    assert abs(np.diff(drift).std() - 0.1) < 0.005
    assert times.steps_in_a_day(series.times) == 24


def test_errors_add_up_over_batches():
    rng = np.random.default_rng(0)
    y, t = rng.normal(size=(2, 7, 4, 3))
    t[2, 1, 0] = np.nan
    errors = error_sums(y[:3], t[:3]) + error_sums(y[3:], t[3:])
    off = y - t
    mse, mae = mse_and_mae(errors)
    assert math.isclose(mse, np.nanmean(off**2)) and math.isclose(mae, np.nanmean(abs(off)))
    np.testing.assert_allclose(mse_and_mae(errors, axis=1)[0], np.nanmean(off**2, axis=(0, 2)))
    in_units = by_column(errors, np.array([1.0, 10.0, 1.0]))["mae_in_units"]
    assert math.isclose(in_units[1], 10 * np.nanmean(abs(off[:, :, 1])))
