"""What must hold of every op without taking a single derivative.

The ops and their arguments come from the tables of test_ops.py, in random shapes, memory layouts
and masks.
"""

import math

import numpy as np
import pytest
from conftest import XP
from hypothesis import given
from test_ops import EXACT, SMOOTH, draw, named

from minisum import backend, ops
from minisum.mixers.attention import Attention
from minisum.ops.activations import normal_cdf

OPS = EXACT | SMOOTH

# How far a result may be from float64's, as a share of the largest number in it: the one table.
# About 100 roundings of the type.
TOLERANCE = {"float64": 2e-14, "float32": 1e-5, "float16": 5e-2}

POOLED = {
    "sum_tokens": ops.sum_tokens,
    "mean_tokens": ops.mean_tokens,
    "mean_tokens by root": named(ops.mean_tokens, power=0.5),
    "cumsum_tokens": ops.cumsum_tokens,
}
ATTENTIONS = {
    "attention": ops.attention,
    "attention_blocked": named(ops.attention_blocked, block=2),
}


def host(x):
    return backend.to_numpy(x)


def assert_same(a, b):
    """Equal to the last bit."""
    np.testing.assert_array_equal(host(a), host(b), strict=True)


def assert_close(found, wanted, dtype="float64"):
    """Equal but for rounding of `dtype`."""
    found, wanted = host(found).astype(np.float64), host(wanted).astype(np.float64)
    assert found.shape == wanted.shape
    assert np.isfinite(found).all()
    scale = np.abs(wanted).max(initial=0)
    error = np.abs(found - wanted).max(initial=0)
    assert error <= TOLERANCE[dtype] * max(scale, 1), (error, scale)


def is_real(x):
    return x is not None and x.dtype.kind == "f"


def arrays_only(gradients):
    """The gradients of the real arguments, in order."""
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return [g for g in gradients if g is not None]


def each(f, *ys):
    """f of an output, or of each of several outputs: what `back` takes."""
    return tuple(map(f, *ys)) if isinstance(ys[0], tuple) else f(*ys)


def parts(y):
    return y if isinstance(y, tuple) else (y,)


def cotangent(case, y):
    return each(lambda part: XP.asarray(case.rng.normal(size=part.shape)), y)


# All ops


@pytest.mark.parametrize("name", OPS)
@given(case=draw())
def test_backward_is_linear(name, case):
    op, *arrays = OPS[name](case)
    y, back = op(*arrays)
    u, v = cotangent(case, y), cotangent(case, y)
    both = each(lambda a, b: 2.5 * a - b, u, v)
    for together, of_u, of_v in zip(*(arrays_only(back(dy)) for dy in (both, u, v)), strict=True):
        assert_close(together, 2.5 * of_u - of_v)


@pytest.mark.parametrize("name", OPS)
@given(case=draw())
def test_backward_twice_gives_the_same_bits(name, case):
    """A second call, with another between; and neither direction writes to its inputs.

    A GPU's atomic additions come in any order, so there the last digit may differ.
    """
    op, *arrays = OPS[name](case)
    before = [None if a is None else a.copy() for a in arrays]
    y, back = op(*arrays)
    dy = cotangent(case, y)
    kept = each(XP.copy, dy)
    first = [g.copy() for g in arrays_only(back(dy))]
    back(cotangent(case, y))
    for a, b in zip(first, arrays_only(back(dy)), strict=True):
        (assert_same if XP is np else assert_close)(a, b)
    for a, b in zip(parts(dy), parts(kept), strict=True):
        assert_same(a, b)
    for a, b in zip(arrays, before, strict=True):
        assert a is None or (a == b).all()


@pytest.mark.parametrize("name", OPS)
@given(case=draw())
def test_types_are_kept_and_float32_is_near_float64(name, case):
    op, *wide = OPS[name](case)
    narrow = [a.astype("float32") if is_real(a) else a for a in wide]
    wide = [a.astype("float64") if is_real(a) else a for a in narrow]
    y, back = op(*narrow)
    reference, back_reference = op(*wide)
    for found, wanted in zip(parts(y), parts(reference), strict=True):
        assert found.dtype == "float32" and wanted.dtype == "float64"
        assert_close(found, wanted, "float32")
    dy = each(lambda u: u.astype("float32"), cotangent(case, y))
    gradients = arrays_only(back(dy))
    references = arrays_only(back_reference(each(lambda u: u.astype("float64"), dy)))
    assert len(gradients) == sum(is_real(a) for a in narrow)
    for gradient, wanted in zip(gradients, references, strict=True):
        assert gradient.dtype == "float32"
        assert_close(gradient, wanted, "float32")


@pytest.mark.parametrize("name", OPS)
@given(case=draw())
def test_memory_layout_does_not_matter(name, case):
    op, *arrays = OPS[name](case)
    y, back = op(*arrays)
    plain, back_plain = op(*[None if a is None else XP.ascontiguousarray(a) for a in arrays])
    for found, part in zip(parts(y), parts(plain), strict=True):
        assert_close(found, part)
    dy = each(lambda u: case._finish(u) if u.ndim else u, cotangent(case, y))
    wanted = arrays_only(back_plain(each(XP.copy, dy)))
    for gradient, g in zip(arrays_only(back(dy)), wanted, strict=True):
        assert_close(gradient, g)


@pytest.mark.skipif(XP is np, reason="compares CuPy with NumPy: set MINISUM_TEST_BACKEND=cupy")
@pytest.mark.parametrize("name", OPS)
@given(case=draw())
def test_the_device_agrees_with_the_host(name, case):
    op, *arrays = OPS[name](case)
    y, back = op(*arrays)
    reference, back_reference = op(*[None if a is None else host(a) for a in arrays])
    for found, part in zip(parts(y), parts(reference), strict=True):
        assert_close(found, part)
    dy = cotangent(case, y)
    wanted = arrays_only(back_reference(each(host, dy)))
    for gradient, g in zip(arrays_only(back(dy)), wanted, strict=True):
        assert_close(gradient, g)


# Half precision: what is stored is float16, what adds up is not


HALF = {
    "sum_tokens": lambda x: ops.sum_tokens(x),
    "mean_tokens": lambda x: ops.mean_tokens(x),
    "cumsum_tokens": lambda x: ops.cumsum_tokens(x),
    "mean_squared_error": lambda x: ops.mean_squared_error(x, x * 0, total=1),
    "binary_cross_entropy": lambda x: ops.binary_cross_entropy(x, x * 0, total=1),
    "cross_entropy": lambda x: ops.cross_entropy(
        x.reshape(-1, x.shape[-1]), XP.zeros(x.shape[0] * x.shape[1], int)
    ),
    "linear": lambda x: ops.linear(x, x[0, :5] * 0 + 1, x[0, 0, :1] * 0 + XP.ones(5, x.dtype)),
    "embed": lambda x: ops.embed(XP.zeros(x.shape[:2], int), x[0, :3]),
    "add_positions": lambda x: ops.add_positions(x.transpose(1, 0, 2), x[0, :1]),
    "modulate": lambda x: ops.modulate(x.transpose(1, 0, 2), x[0, :1], 1.0),
    "layer_norm": lambda x: ops.layer_norm(x, x[0, 0] * 0 + 1, x[0, 0] * 0),
    "rms_norm": lambda x: ops.rms_norm(x, x[0, 0] * 0 + 1),
    "attention": lambda x: ops.attention(x[:, None, :64], x[:, None] / 4, x[:, None]),
    "attention_blocked": lambda x: ops.attention_blocked(
        x[:, None, :64], x[:, None] / 4, x[:, None]
    ),
}


@pytest.mark.parametrize("name", HALF)
def test_float16_adds_up_in_float32(name):
    """Over 8,192 tokens; added in float16, 1 + 1 + 1 + ... stops at 2,048."""
    rng = np.random.default_rng(8192)
    narrow = XP.asarray(rng.uniform(0.5, 2.0, (1, 8192, 6)).astype("float16"))
    y, back = HALF[name](narrow)
    reference, back_reference = HALF[name](narrow.astype("float64"))
    assert_relative(y, reference)
    if "attention" in name:
        return  # a score's gradient, about 1/8192 of dy, is below what float16 can store
    dy = XP.asarray(rng.uniform(0.5, 1.0, y.shape)).astype("float16")
    if name in ("linear", "embed", "layer_norm", "rms_norm", "add_positions", "modulate"):
        dy = dy / 8  # the sums of the gradients stay below the largest float16, 65,504
    gradients = arrays_only(back(dy))
    for gradient, wanted in zip(
        gradients, arrays_only(back_reference(dy.astype("float64"))), strict=True
    ):
        assert_relative(gradient, wanted)
    assert name not in POOLED or gradients[0].dtype == "float16"


def assert_relative(found, wanted):
    found, wanted = host(found).astype(np.float64), host(wanted)
    assert np.isfinite(found).all()
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert error < 2e-3, error


@pytest.mark.parametrize("name", ["running_sum", "decayed_sum", "causal_product"])
def test_a_float16_recurrence_remembers_in_float32(name):
    """And hands out float16."""
    rng = np.random.default_rng(8192)
    u = XP.asarray(rng.uniform(0.5, 2.0, (1, 8192, 6)).astype("float16"))
    head = u[:, None] / 16
    arrays = {
        "running_sum": (u, u[:, 0]),
        "decayed_sum": (u, -u / 1024, u[:, 0]),
        "causal_product": (head, head, head, -head[..., :1], head[:, :, :6]),
    }[name]
    op = getattr(ops, name)
    y, back = op(*arrays)
    reference, back_reference = op(*(a.astype("float64") for a in arrays))
    dy = each(lambda part: XP.asarray(rng.uniform(1 / 16, 1 / 4, part.shape)).astype("float16"), y)
    gradients = arrays_only(back(dy))
    assert {part.dtype for part in (*y, gradients[0])} == {np.dtype("float16")}
    if name == "causal_product":
        return  # its last bits are lost in the products, not in the sums
    wanted = arrays_only(back_reference(each(lambda part: part.astype("float64"), dy)))
    for part, whole in zip([*y, *gradients], [*reference, *wanted], strict=True):
        assert_relative(part, whole)


def test_a_float16_mean_may_have_a_sum_beyond_float16():
    x = XP.full((1, 8192, 2), 16.0, "float16")
    assert_same(ops.mean_tokens(x)[0], XP.full((1, 2), 16.0, "float16"))


# Masks


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("name", POOLED)
@given(case=draw())
def test_nothing_under_the_mask_survives(name, poison, case):
    op = POOLED[name]
    x, mask = case.normal("B n d"), case.mask()
    clean, back_clean = op(XP.where(mask[:, :, None], x, 0), mask)
    y, back = op(XP.where(mask[:, :, None], x, poison), mask)
    assert_same(y, clean)
    dy = cotangent(case, y)
    dx, _ = back(dy)
    assert_same(dx, back_clean(dy)[0])
    assert (host(dx)[~host(mask)] == 0).all()
    assert (host(dx)[host(mask)] != 0).all() or name == "cumsum_tokens"


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e300])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ATTENTIONS)
@given(case=draw())
def test_no_masked_key_survives(name, causal, poison, case):
    op = ATTENTIONS[name]
    q, k, v, mask = (
        case.normal("B H n h"),
        case.normal("B H n h"),
        case.normal("B H n d"),
        case.mask(),
    )
    real = mask[:, None, :, None]
    clean, back_clean = op(q, XP.where(real, k, 0), XP.where(real, v, 0), mask, causal)
    y, back = op(q, XP.where(real, k, poison), XP.where(real, v, poison), mask, causal)
    assert_same(y, clean)
    dy = cotangent(case, y)
    for gradient, wanted in zip(back(dy)[:3], back_clean(dy)[:3], strict=True):
        assert_same(gradient, wanted)
    _, dk, dv, _ = (host(g) for g in (*back(dy)[:3], XP.zeros(1)))
    padding = ~np.broadcast_to(host(real), dk.shape)
    assert (dk[padding] == 0).all()
    assert (dv[~np.broadcast_to(host(real), dv.shape)] == 0).all()


@pytest.mark.parametrize("name", ATTENTIONS)
@given(case=draw())
def test_a_query_without_a_key_gives_zero_both_ways(name, case):
    q, k, v = case.normal("B H n h"), case.normal("B H n h"), case.normal("B H n d")
    mask = host(case.mask()).copy()
    mask[0] = False
    y, back = ATTENTIONS[name](q, k, v, XP.asarray(mask))
    assert (host(y)[0] == 0).all()
    for gradient in back(cotangent(case, y))[:3]:
        assert (host(gradient)[0] == 0).all() and np.isfinite(host(gradient)).all()


@given(case=draw(n=(2, 7)))
def test_causal_queries_before_the_first_key_give_zero(case):
    """With padding on the left, the padding's own queries see nothing."""
    arrays = [case.normal("B H n h") for _ in range(3)]
    mask = np.ones((case.B, case.n), bool)
    mask[:, 0] = False
    for op in ATTENTIONS.values():
        y, back = op(*arrays, XP.asarray(mask), True)
        assert (host(y)[:, :, 0] == 0).all() and (host(y)[:, :, 1:] != 0).all()
        dq = host(back(cotangent(case, y))[0])
        assert (dq[:, :, 0] == 0).all() and np.isfinite(dq).all()


@pytest.mark.parametrize("name", POOLED)
@given(case=draw())
def test_all_padding_gives_zeros_both_ways(name, case):
    x = case.normal("B n d")
    y, back = POOLED[name](x, XP.zeros((case.B, case.n), bool))
    assert not host(y).any()
    assert not host(back(cotangent(case, y))[0]).any()


@pytest.mark.parametrize("n", [0, 1])
def test_no_token_at_all(n):
    """A text of length 0, as a row of padding or as an array without columns."""
    x, mask = XP.ones((2, n, 3)), XP.zeros((2, n), bool)
    for op in POOLED.values():
        for m in (mask, None) if n == 0 else (mask,):
            y, back = op(x, m)
            assert not host(y).any()
            assert back(XP.ones_like(y))[0].shape == x.shape
    for op in ATTENTIONS.values():
        y, back = op(x[:, None], x[:, None], x[:, None], mask)
        assert not host(y).any()
        assert [g.shape for g in back(XP.ones_like(y))[:3]] == [(2, 1, n, 3)] * 3


def padded(case, array, axis, front, end):
    """`array` with random numbers before and after along `axis`."""
    shape = list(array.shape)
    parts = []
    for count in (front, None, end):
        shape[axis] = count
        parts.append(array if count is None else XP.asarray(case.rng.normal(size=shape)))
    return XP.concatenate(parts, axis=axis)


def padded_mask(mask, front, end):
    rows = len(mask)
    return XP.concatenate(
        [XP.zeros((rows, front), bool), mask, XP.zeros((rows, end), bool)], axis=1
    )


@pytest.mark.parametrize("name", POOLED)
@given(case=draw(d=(2, 6), n=(1, 40), p=(0, 9), q=(0, 9)))
def test_padding_changes_no_bit_of_a_pool(name, case):
    """NumPy adds the rows of a C-ordered (n, d) one after the other, and adding 0 changes nothing.

    With d = 1, or in another memory order, it adds pairwise in eights, and padding moves the
    tokens to other partial sums: see the next test.
    """
    if XP is not np:
        pytest.skip("a GPU adds in an order that depends on the length")
    x, mask = XP.ascontiguousarray(case.normal("B n d")), case.mask()
    y, back = POOLED[name](x, mask)
    longer = padded(case, x, 1, case.p, case.q), padded_mask(mask, case.p, case.q)
    y_longer, back_longer = POOLED[name](*longer)
    real = slice(case.p, case.p + case.n)
    if name == "cumsum_tokens":
        dy = cotangent(case, y_longer)
        assert_same(y_longer[:, real], y)
        return
    assert_same(y_longer, y)
    dy = cotangent(case, y)
    dx_longer = back_longer(dy)[0]
    assert_same(dx_longer[:, real], back(dy)[0])
    assert not host(dx_longer[:, : case.p]).any() and not host(dx_longer[:, real.stop :]).any()


@pytest.mark.parametrize("name", POOLED)
@given(case=draw(n=(1, 40), p=(0, 9), q=(0, 9)))
def test_padding_changes_no_pool(name, case):
    x, mask = case.normal("B n d"), case.mask()
    y, _ = POOLED[name](x, mask)
    y_longer, _ = POOLED[name](
        padded(case, x, 1, case.p, case.q), padded_mask(mask, case.p, case.q)
    )
    if name == "cumsum_tokens":
        y_longer = y_longer[:, case.p : case.p + case.n]
    assert_close(y_longer, y)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ATTENTIONS)
@given(case=draw(p=(0, 5), q=(0, 5)))
def test_padding_changes_no_attention(name, causal, case):
    """But for rounding: a matrix product adds in an order that depends on its sizes."""
    op = ATTENTIONS[name]
    arrays = [case.normal("B H n h") for _ in range(3)]
    mask = case.mask()
    y, back = op(*arrays, mask, causal)
    longer = [padded(case, a, 2, case.p, case.q) for a in arrays]
    y_longer, back_longer = op(*longer, padded_mask(mask, case.p, case.q), causal)
    real = slice(case.p, case.p + case.n)
    assert_close(y_longer[:, :, real], y)
    dy = cotangent(case, y)
    dy_longer = XP.zeros(y_longer.shape)
    dy_longer[:, :, real] = dy
    for gradient, wanted in zip(back_longer(dy_longer)[:3], back(dy)[:3], strict=True):
        assert_close(gradient[:, :, real], wanted)
        assert not host(gradient[:, :, : case.p]).any()
        assert not host(gradient[:, :, real.stop :]).any()


@given(case=draw())
def test_an_example_alone_equals_itself_in_a_batch(case):
    x, mask = case.normal("B n d"), case.mask()
    for op in POOLED.values():
        y, back = op(x, mask)
        dy = cotangent(case, y)
        dx, _ = back(dy)
        for b in range(case.B):
            alone, back_alone = op(x[b : b + 1], mask[b : b + 1])
            assert_close(alone, y[b : b + 1])
            assert_close(back_alone(dy[b : b + 1])[0], dx[b : b + 1])
    q, k, v = (case.normal("B H n h") for _ in range(3))
    for op in ATTENTIONS.values():
        y, _ = op(q, k, v, mask)
        for b in range(case.B):
            one = slice(b, b + 1)
            assert_close(op(q[one], k[one], v[one], mask[one])[0], y[one])


@given(case=draw(), causal=...)
def test_the_attention_mixer_ignores_padding(case, causal: bool):
    """Projections have biases: a masked token's key is not zero, and must be masked after them."""
    mixer = Attention(case.H * case.h, case.H, causal=causal)
    params = {
        name: XP.asarray(a + case.rng.normal(size=a.shape))
        for name, a in mixer.init(case.rng).items()
    }
    case.sizes["w"] = case.H * case.h
    x, mask = case.normal("B n w"), case.mask()
    results = []
    for poison in (0.0, math.nan):
        y, back = mixer(params, XP.where(mask[:, :, None], x, poison), mask)
        real = XP.where(mask[:, :, None], y, 0)
        dy = XP.where(mask[:, :, None], XP.ones(y.shape) * XP.arange(1.0, y.shape[-1] + 1), 0)
        dx, dparams = back(dy)
        assert not host(dx)[~host(mask)].any()
        results.append([real, dx, *dparams.values()])
    for a, b in zip(*results, strict=True):
        assert_same(a, b)


# Order


@given(case=draw())
def test_a_sum_does_not_know_the_order(case):
    x, mask = case.normal("B n d"), case.mask()
    order = case.rng.permutation(case.n)
    for op in (ops.sum_tokens, ops.mean_tokens):
        assert_close(op(x[:, order], mask[:, order])[0], op(x, mask)[0])
        assert_close(op(x[:, order])[0], op(x)[0])


@given(case=draw())
def test_the_last_of_a_running_sum_is_the_sum(case):
    x, mask = case.normal("B n d"), case.mask()
    assert_close(ops.cumsum_tokens(x, mask)[0][:, -1], ops.sum_tokens(x, mask)[0])


def changed_from(case, array, axis, t):
    """A copy whose tokens from t on are other numbers."""
    other = host(array).copy()
    future = (slice(None),) * axis + (slice(t, None),)
    other[future] = case.rng.normal(size=other[future].shape)
    return XP.asarray(other)


@given(case=draw(n=(2, 9)))
def test_no_causal_output_sees_the_future(case):
    """Bit for bit, and no gradient comes back from the past to the future."""
    t = int(case.rng.integers(1, case.n))
    x = XP.ascontiguousarray(case.normal("B n d"))
    y, back = ops.cumsum_tokens(x)
    assert_same(ops.cumsum_tokens(changed_from(case, x, 1, t))[0][:, :t], y[:, :t])
    dy = host(cotangent(case, y)).copy()
    dy[:, t:] = 0
    assert not host(back(XP.asarray(dy))[0])[:, t:].any()

    arrays = [XP.ascontiguousarray(case.normal("B H n h")) for _ in range(3)]
    others = [changed_from(case, a, 2, t) for a in arrays]
    for op in ATTENTIONS.values():
        y, back = op(*arrays, causal=True)
        assert_same(op(*others, causal=True)[0][:, :, :t], y[:, :, :t])
        dy = host(cotangent(case, y)).copy()
        dy[:, :, t:] = 0
        for gradient in back(XP.asarray(dy))[:3]:
            assert not host(gradient)[:, :, t:].any()


# Two forms of attention


@pytest.mark.parametrize("causal", [False, True])
@given(case=draw(n=(1, 9), m=(1, 9), block=(1, 12)))
def test_blocked_attention_equals_attention(causal, case):
    """For blocks of one, blocks that do not divide n, and one block larger than n."""
    n = min(case.n, case.m) if causal else case.n
    q = case.normal("B H n h")[:, :, :n]
    k, v, mask = case.normal("B H m h"), case.normal("B H m d"), case.mask("B m")
    for m in (mask, None):
        y, back = ops.attention(q, k, v, m, causal)
        blocked, back_blocked = ops.attention_blocked(q, k, v, m, causal, block=case.block)
        assert_close(blocked, y)
        dy = cotangent(case, y)
        for gradient, wanted in zip(back_blocked(dy)[:3], back(dy)[:3], strict=True):
            assert_close(gradient, wanted)


@given(case=draw(n=(1, 7), m=(0, 7)))
def test_the_last_queries_alone_give_the_last_rows(case):
    """What generation does: n new queries against all keys so far."""
    case.sizes["total"] = case.n + case.m
    q, k, v = (case.normal("B H total h") for _ in range(3))
    for op in ATTENTIONS.values():
        whole = op(q, k, v, causal=True)[0]
        assert_close(op(q[:, :, case.m :], k, v, causal=True)[0], whole[:, :, case.m :])


@pytest.mark.parametrize("name", ATTENTIONS)
def test_causal_attention_refuses_more_queries_than_keys(name):
    with pytest.raises(ValueError, match="at least as many keys as queries"):
        ATTENTIONS[name](
            XP.ones((1, 1, 3, 2)), XP.ones((1, 1, 2, 2)), XP.ones((1, 1, 2, 2)), None, True
        )


@given(case=draw())
def test_weights_of_attention_sum_to_one(case):
    q, k = case.normal("B H n h", 3.0), case.normal("B H n h", 3.0)
    for op in ATTENTIONS.values():
        assert_close(op(q, k, XP.ones((case.B, case.H, case.n, 2)))[0],
                     XP.ones((case.B, case.H, case.n, 2)))  # fmt: skip


# Losses


@given(case=draw())
def test_ignored_targets_count_for_nothing(case):
    logits, targets = case.normal("B n V"), host(case.ids("B n", case.V)).copy()
    ignored = case.rng.random(targets.shape) < 0.4
    targets[ignored] = -1
    loss, back = ops.cross_entropy(logits, XP.asarray(targets))
    dlogits = host(back(1.0)[0])
    assert not dlogits[ignored].any()
    if ignored.all():
        assert float(loss) == 0 and not dlogits.any()
        return
    rest, back_rest = ops.cross_entropy(
        XP.asarray(host(logits)[~ignored]), XP.asarray(targets[~ignored])
    )
    assert_close(loss, rest)
    assert_close(dlogits[~ignored], back_rest(1.0)[0])
    assert (np.abs(dlogits[~ignored].sum(axis=-1)) < 1e-15).all()


def test_all_targets_ignored():
    for poison in (0.0, math.nan, 1e300):
        loss, back = ops.cross_entropy(XP.full((2, 3), poison), XP.asarray([-1, -1]))
        assert float(loss) == 0 and not host(back(1.0)[0]).any()


def test_another_number_may_mean_ignored():
    logits = XP.asarray([[1.0, 2.0], [3.0, 1.0]])
    loss, _ = ops.cross_entropy(logits, XP.asarray([0, 1]), ignore=1)
    assert_close(loss, ops.cross_entropy(logits[:1], XP.asarray([0]))[0])


LOSSES = {
    "cross_entropy": lambda c: (ops.cross_entropy, c.normal("B V"), c.ids("B", c.V, -1)),
    "binary_cross_entropy": lambda c: (
        ops.binary_cross_entropy, c.normal("B n"), c.uniform("B n", 0, 1)),
    "mean_squared_error": lambda c: (ops.mean_squared_error, c.normal("B n"), c.normal("B n")),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
@given(case=draw(B=(1, 6)))
def test_the_losses_of_shards_add_up(name, case):
    op, y, targets = LOSSES[name](case)
    count = int((host(targets) != -1).sum()) if name == "cross_entropy" else y.size
    whole, back_whole = op(y, targets)
    cut = int(case.rng.integers(0, case.B + 1))
    total, gradients = 0.0, []
    for rows in (slice(0, cut), slice(cut, None)):
        loss, back = op(y[rows], targets[rows], total=max(1, count))
        total = total + loss
        gradients.append(back(1.0)[0])
    assert_close(total, whole)
    assert_close(XP.concatenate(gradients), back_whole(1.0)[0])


@pytest.mark.parametrize("name", [*LOSSES, "linear_cross_entropy", "linear_cross_entropy b"])
@given(case=draw())
def test_the_gradient_of_a_loss_scales_with_what_it_is_given(name, case):
    """1.0, with which every training step begins, and others: as numbers and as arrays."""
    op, *arrays = (LOSSES.get(name) or SMOOTH["linear_cross_entropy"])(case)
    if name == "linear_cross_entropy":
        arrays[2] = None
    _, back = op(*arrays)
    wanted = [2.0 * g for g in arrays_only(back(XP.asarray(0.5)))]
    for dloss in (1.0, 2.0, 0.0, XP.asarray(1.0)):
        gradients = back(dloss)
        assert [g is None for g in gradients] == [g is None for g in back(0.5)]
        for gradient, g in zip(arrays_only(gradients), wanted, strict=True):
            assert_close(gradient, float(dloss) * g)


# Extremes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits(dtype):
    """Nothing overflows at ±10⁴, and the loss is the gap between the logits."""
    logits = XP.asarray([[1e4, -1e4, 0], [0, 1e4, 1e4]], dtype)
    with np.errstate(all="raise", under="ignore"):
        loss, back = ops.cross_entropy(logits, XP.asarray([1, 2]), total=1)
        assert_close(loss, np.array(2e4 + math.log(2)), dtype)
        assert_same(back(1.0)[0], XP.asarray([[1, -1, 0], [0, 0.5, -0.5]], dtype))
        plain = XP.eye(3, dtype=dtype)
        blocked, back_blocked = ops.linear_cross_entropy(
            logits, plain, None, XP.asarray([1, 2]), total=1
        )
        assert_close(blocked, host(loss), dtype)
        assert_same(back_blocked(1.0)[0], back(1.0)[0])
        x = XP.asarray([1e4, -1e4, 1e4, -1e4], dtype)
        loss, back = ops.binary_cross_entropy(x, XP.asarray([1, 0, 0, 1], dtype), total=1)
        assert float(loss) == 2e4
        assert_same(back(1.0)[0], XP.asarray([0, 0, 1, -1], dtype))
        for op in ATTENTIONS.values():
            q = XP.asarray([[[[1e4], [-1e4]]]], dtype)
            y, back = op(q, XP.asarray([[[[1.0], [-1.0], [0.0]]]], dtype), XP.asarray(
                [[[[1.0], [2.0], [4.0]]]], dtype))  # fmt: skip
            assert_same(y, XP.asarray([[[[1.0], [2.0]]]], dtype))
            assert all(np.isfinite(host(g)).all() for g in back(XP.ones_like(y))[:3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_activations(dtype):
    """At ±1000 (where exp underflows to a harmless 0) each is its asymptote to the last bit."""
    x = XP.asarray([-1e3, 1e3], dtype)
    with np.errstate(all="raise", under="ignore"):
        for op, y, dx in [
            (ops.sigmoid, [0, 1], [0, 0]),
            (ops.softplus, [0, 1e3], [0, 1]),
            (ops.silu, [0, 1e3], [0, 1]),
            (ops.gelu, [0, 1e3], [0, 1]),
            (ops.relu, [0, 1e3], [0, 1]),
        ]:
            found, back = op(x)
            assert (host(found) == y).all() and (host(back(XP.ones_like(x))) == dx).all()


def test_a_slope_of_zero_at_zero():
    """ReLU at exactly 0 passes nothing back; so it does at -0."""
    y, back = ops.relu(XP.asarray([0.0, -0.0, 5e-324, -5e-324]))
    assert (host(back(XP.ones(4))) == [0, 0, 1, 0]).all()
    assert (host(y) == [0, 0, 5e-324, 0]).all()
    ids, one = XP.zeros((2, 3), int), XP.ones((3, 3))
    y, back = ops.direct_summation(ids, one, one, 1.0, one * 0)
    assert not any(host(g).any() for g in arrays_only(back(XP.ones_like(y))))
    y, back = ops.relu_pool(XP.zeros((2, 3, 3)))
    assert not host(back(XP.ones_like(y))[0]).any()


def test_a_constant_row_through_the_norms():
    """No variance: layer norm gives the bias, and finite gradients."""
    x = XP.full((2, 4), 3.0)
    y, back = ops.layer_norm(x, XP.ones(4), XP.arange(4.0))
    assert_same(y[0], XP.arange(4.0))
    assert all(np.isfinite(host(g)).all() for g in back(XP.asarray(np.eye(2, 4))))
    y, back = ops.rms_norm(x * 0, XP.ones(4))
    assert not host(y).any() and np.isfinite(host(back(XP.ones((2, 4)))[0])).all()


@given(case=draw(d=(2, 6)))
def test_norms_do_not_see_size_or_shift(case):
    x, gain, bias = case.normal("B n d"), case.normal("d"), case.normal("d")
    y, _ = ops.layer_norm(x, gain, bias, eps=0.0)
    scale = max(1.0, float(abs(y).max()))
    moved = ops.layer_norm(4 * x + 8, gain, bias, eps=0.0)[0]
    spread = host(x).std(axis=-1).min()
    assert float(abs(moved - y).max()) < 1e-13 * scale * (1 + 1 / spread)
    assert_close(ops.rms_norm(4 * x, gain, eps=0.0)[0], ops.rms_norm(x, gain, eps=0.0)[0])
    dx, _, _ = ops.layer_norm(x, gain, bias, eps=0.0)[1](cotangent(case, y))
    assert float(abs(dx.sum(axis=-1)).max()) < 1e-12 * (1 + 1 / spread)


def test_normal_cdf():
    """Against the C library's erfc: all the pieces it is made of, their seams, the tail."""
    seams = math.sqrt(2) * np.array([0.46875, 4.0, -0.46875, -4.0])
    x = np.concatenate([
        np.linspace(-37, 9, 8001), seams, np.nextafter(seams, 99), np.nextafter(seams, -99),
        [1e-300, 30.0, -30.0, 1e300],
    ])  # fmt: skip
    wanted = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    found = host(normal_cdf(XP.asarray(x)))
    # The argument -v/√2 of the C library's erfc is rounded twice, which erfc multiplies by v².
    assert (np.abs(found - wanted) <= wanted * (2e-15 + 4e-16 * x.clip(-40, 40) ** 2)).all()
    narrow = x[(x > -12) & (x < 1e30)].astype("float32")
    assert normal_cdf(XP.asarray(narrow)).dtype == "float32"
    wanted = np.array([0.5 * math.erfc(-float(v) / math.sqrt(2)) for v in narrow])
    found = host(normal_cdf(XP.asarray(narrow)))
    assert (np.abs(found - wanted) <= wanted * (1e-6 + 1.2e-7 * narrow**2)).all()


def test_normal_cdf_at_the_ends():
    with np.errstate(all="raise", under="ignore"):
        y = host(normal_cdf(XP.asarray([math.inf, -math.inf, math.nan, 0.0, -0.0])))
    assert y[0] == 1 and 0 <= y[1] < 1e-190 and math.isnan(y[2])
    assert y[3] == y[4] == 0.5


# Heads, dropout


@given(case=draw())
def test_splitting_and_merging_heads_undo_each_other(case):
    x = case.normal("B H n h")
    merged, _ = ops.merge_heads(x)
    assert_same(ops.split_heads(merged, case.H)[0], x)
    for head in range(case.H):
        assert_same(merged[..., head * case.h : (head + 1) * case.h], x[:, head])


@given(case=draw())
def test_dropout_keeps_the_mean(case):
    x, keep = case.normal("B n d"), case.keep("B n d", 0.25)
    y, _ = ops.dropout(x, keep, 0.25)
    assert_close(y, XP.where(keep, x / 0.75, 0.0))
    poisoned = XP.where(keep, x, math.nan)
    assert_same(ops.dropout(poisoned, keep, 0.25)[0], y)


def test_draw_keep_draws_at_its_rate():
    keep = ops.dropout.__globals__["draw_keep"](np.random.default_rng(0), (200, 500), 0.3)
    assert keep.dtype == bool and abs(keep.mean() - 0.7) < 0.005


@given(case=draw())
def test_embed_adds_to_a_given_gradient(case):
    """back(dx, add_to=G) is G + back(dx), in G's own memory, and adds again when called again."""
    ids, table = case.ids("B n", case.V), case.grid("V d")
    x, back = ops.embed(ids, table)
    dx = case.grid("B n d")
    _, dtable = back(dx)
    start = host(case.grid("V d"))
    total = XP.asarray(start.copy())
    for times in (1, 2):
        none, found = back(dx, add_to=total)
        assert none is None and found is total
        assert_same(total, XP.asarray(start) + times * dtable)
    assert_same(back(dx)[1], dtable)
