"""Answers to tests/exercises.py: RIGHT, one for each, and WRONG, the likely mistakes."""

import numpy as np


def cube(x):
    return x**3, lambda dy: 3 * x**2 * dy


def quadratic_form(x, W):
    def back(dy):
        dy = dy[:, None]
        return dy * (x @ W + x @ W.T), (dy * x).T @ x

    return ((x @ W) * x).sum(axis=1), back


def first_token(x, mask):
    first = mask & (np.cumsum(mask, axis=1) == 1)

    def back(dy):
        return np.where(first[:, :, None], dy[:, None, :], 0), None

    return np.where(first[:, :, None], x, 0).sum(axis=1), back


def table_gradient(ids, dx, words):
    dtable = np.zeros((words, dx.shape[-1]))
    np.add.at(dtable, ids, dx)
    return dtable


def tied_layers(params, x):
    W = params["W"]
    projected = x @ W.T
    hidden = np.maximum(projected, 0)

    def back(dy, grads):
        dprojected = (dy @ W.T) * (projected > 0)
        grads["W"] += hidden.T @ dy + dprojected.T @ x
        return dprojected @ W

    return hidden @ W, back


def softmax(x):
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def fooled_by_ones():
    """Rows of a softmax sum to 1: the gradient of that sum is 0, which this `back` always says."""
    return lambda x: (softmax(x), np.zeros_like)


def what_notices():
    """The exact check skips kinks, and 0 is one: the derivative there is a convention."""
    return "tests/ops/test_invariants.py::test_a_slope_of_zero_at_zero"


def loss_of_a_batch(losses, counts):
    total = max(1, sum(counts))
    return sum(loss * count for loss, count in zip(losses, counts, strict=True)) / total


def numbers_saved_by_attention(B, H, n, h):
    """q, k, v and n² weights for each head: from n = 3h on half of them or more are weights."""
    return B * H * (3 * n * h + n * n)


def mean_so_far(x, state=None):
    total, count = (np.zeros_like(x[:, 0]), 0) if state is None else state
    sums = total[:, None] + np.cumsum(x, axis=1)
    counts = count + 1 + np.arange(x.shape[1])
    return sums / counts[:, None], (sums[:, -1], count + x.shape[1])


def decayed_sum(u, a):
    h = u.copy()
    for t in range(1, u.shape[1]):
        h[:, t] += a * h[:, t - 1]

    def back(dh):
        du = dh.copy()
        for t in reversed(range(u.shape[1] - 1)):
            du[:, t] += a * du[:, t + 1]
        return du, (du[:, 1:] * h[:, :-1]).sum(axis=(0, 1))

    return h, back


def epoch_order(seed, epoch, rows):
    return np.random.default_rng([seed, epoch]).permutation(rows)


RIGHT = {
    answer.__name__: answer
    for answer in (
        cube, quadratic_form, first_token, table_gradient, tied_layers, fooled_by_ones,
        what_notices, loss_of_a_batch, numbers_saved_by_attention, mean_so_far, decayed_sum,
        epoch_order,
    )
}  # fmt: skip


def half_a_quadratic_form(x, W):
    y, back = quadratic_form(x, W)
    return y, lambda dy: (dy[:, None] * (x @ W.T), back(dy)[1])


def first_token_by_a_product(x, mask):
    first = mask & (np.cumsum(mask, axis=1) == 1)
    return (x * first[:, :, None]).sum(axis=1), lambda dy: (first[:, :, None] * dy[:, None], None)


def leftmost_column(x, mask):
    return first_token(x, np.broadcast_to(np.arange(x.shape[1]) == 0, mask.shape))


def table_gradient_by_assignment(ids, dx, words):
    dtable = np.zeros((words, dx.shape[-1]))
    dtable[ids] = dx
    return dtable


def table_gradient_by_plus(ids, dx, words):
    dtable = np.zeros((words, dx.shape[-1]))
    dtable[ids] += dx
    return dtable


def tied_layers_once(params, x):
    y, _ = tied_layers(params, x)
    W, hidden = params["W"], np.maximum(x @ params["W"].T, 0)

    def back(dy, grads):
        grads["W"] += hidden.T @ dy
        return ((dy @ W.T) * (hidden > 0)) @ W

    return y, back


def tied_layers_rebound(params, x):
    y, back = tied_layers(params, x)

    def rebinding(dy, grads):
        fresh = {"W": np.zeros_like(params["W"])}
        dx = back(dy, fresh)
        grads["W"] = grads["W"] + fresh["W"]
        return dx

    return y, rebinding


def right_softmax():
    def op(x):
        p = softmax(x)
        return p, lambda dy: p * (dy - (dy * p).sum(axis=-1, keepdims=True))

    return op


def mean_without_count(x, state=None):
    before = 0 if state is None else state[:, None]
    y = (np.cumsum(x, axis=1) + before) / np.arange(1, x.shape[1] + 1)[:, None]
    return y, y[:, -1]


def decayed_sum_without_carry(u, a):
    h, _ = decayed_sum(u, a)
    return h, lambda dh: (dh, (dh[:, 1:] * h[:, :-1]).sum(axis=(0, 1)))


def advancing_order():
    rng = np.random.default_rng(0)
    return lambda seed, epoch, rows: rng.permutation(rows)


# What the refusal must say, and the mistake.
WRONG = [
    ("cube", "ratio 0.66", lambda x: (x**3, lambda dy: 2 * x**2 * dy)),
    ("cube", "not x³", lambda x: (x**2, lambda dy: 2 * x * dy)),
    ("quadratic_form", "x, random direction", half_a_quadratic_form),
    ("first_token", "first real tokens", first_token_by_a_product),
    ("first_token", "first real tokens", leftmost_column),
    ("table_gradient", "the sum of k gradients", table_gradient_by_assignment),
    ("table_gradient", "the sum of k gradients", table_gradient_by_plus),
    ("tied_layers", "W, random direction", tied_layers_once),
    ("tied_layers", "another array", tied_layers_rebound),
    ("fooled_by_ones", "right for every dy", right_softmax),
    ("fooled_by_ones", "not right", lambda: lambda x: (x * x, lambda dy: dy * x)),
    ("what_notices", "passes", lambda: "tests/ops/test_ops.py::test_gradient_is_exact[relu]"),
    ("what_notices", "name one test", lambda: "tests/ops/test_invariants.py"),
    ("loss_of_a_batch", "not", lambda losses, counts: sum(losses) / len(losses)),
    ("numbers_saved_by_attention", "are kept", lambda B, H, n, h: 4 * B * H * n * h),
    ("numbers_saved_by_attention", "are kept", lambda B, H, n, h: B * H * n * n),
    ("mean_so_far", "cut at", mean_without_count),
    ("decayed_sum", "u, random direction", decayed_sum_without_carry),
    ("epoch_order", "asked for again", advancing_order()),
    ("epoch_order", "same order", lambda seed, epoch, rows: np.arange(rows)),
    ("epoch_order", "run together",
     lambda seed, epoch, rows: np.random.default_rng(seed + epoch).permutation(rows)),
]  # fmt: skip
