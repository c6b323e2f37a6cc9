"""The jury of the checker: right operations that it must let pass, wrong ones that it must refuse.

All are drawn at several seeds, most of the right ones also at scales from 1e-6 to 1e6.
"""

import numpy as np
import pytest

from minisum.gradcheck import from_loss, from_pair, gradcheck

SCALES = (1e-6, 1e-3, 1.0, 1e3, 1e6)


def normal(*shape):
    return lambda rng, scale: rng.normal(0, scale, shape)


def positive(*shape):
    """Anywhere between 0 and the scale."""
    return lambda rng, scale: scale * rng.uniform(1e-4, 1, shape)


def unit(*shape):
    """Of size 1 whatever the scale."""
    return lambda rng, scale: rng.normal(size=shape)


def fixed(*numbers):
    return lambda rng, scale: np.array(numbers, dtype=float)


def integers(below, *shape):
    return lambda rng, scale: rng.integers(0, below, shape)


def op(value, gradients):
    """An op in the protocol from a formula and a formula of its gradients."""
    return lambda *arrays: (value(*arrays), lambda dy: gradients(dy, *arrays))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_back(dy, p):
    return p * (dy - (dy * p).sum(axis=-1, keepdims=True))


def logsumexp(x):
    top = x.max(axis=-1, keepdims=True)
    return np.log(np.exp(x - top).sum(axis=-1)) + top[..., 0]


def cross_entropy(x, ids):
    return (logsumexp(x) - x[np.arange(len(ids)), ids]).sum()


def cross_entropy_back(dy, x, ids):
    return dy * (softmax(x) - np.eye(x.shape[1])[ids]), None


def layer_norm(x, eps=0.0):
    centred = x - x.mean(axis=-1, keepdims=True)
    r = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    h = centred * r

    def back(dy):
        return r * (
            dy - dy.mean(axis=-1, keepdims=True) - h * (dy * h).mean(axis=-1, keepdims=True)
        )

    return h, back


def attention(q, k, v):
    p = softmax(q @ k.T)

    def back(dy):
        ds = softmax_back(dy @ v.T, p)
        return ds @ k, ds.T @ q, p.T @ dy

    return p @ v, back


def halves(x):
    a, b = np.split(x, 2, axis=-1)
    return (a * b, a - b), lambda dys: np.concatenate(
        [dys[0] * b + dys[1], dys[0] * a - dys[1]], axis=-1
    )


def assigned(table, ids):
    """Rows of a table, with a gradient that holds nothing but those rows."""

    class Rows:
        def __init__(self, rows):
            self.rows = rows

        def dense(self):
            whole = np.zeros_like(table)
            np.add.at(whole, ids, self.rows)
            return whole

    return table[ids], lambda dy: (Rows(dy), None)


def convolution(x, w):
    n, width = len(x), len(w)
    padded = np.concatenate([np.zeros(width - 1), x])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)

    def back(dy):
        dpadded = np.zeros_like(padded)
        for i in range(width):
            dpadded[i : i + n] += dy * w[i]
        return dpadded[width - 1 :], windows.T @ dy

    return windows @ w, back


def inverse(x):
    y = np.linalg.inv(x)
    return y, lambda dy: -y.T @ dy @ y.T


def largest(x):
    at = x.argmax(axis=-1)[:, None]

    def back(dy):
        dx = np.zeros_like(x)
        np.put_along_axis(dx, at, dy[:, None], axis=-1)
        return dx

    return np.take_along_axis(x, at, axis=-1)[:, 0], back


def sorted_rows(x):
    order = x.argsort(axis=-1)

    def back(dy):
        dx = np.empty_like(x)
        np.put_along_axis(dx, order, dy, axis=-1)
        return dx

    return np.take_along_axis(x, order, axis=-1), back


def buffered(x):
    """The same buffer at each call, filled anew."""
    dx = np.empty_like(x)

    def back(dy):
        np.multiply(2 * x, dy, out=dx)
        return dx

    return x * x, back


def interpolated(x, at):
    """Defined between the first row and the last."""
    low = np.floor(at).astype(int)
    share = at - low

    def back(dy):
        dx = np.zeros_like(x)
        np.add.at(dx, low, (1 - share) * dy)
        np.add.at(dx, low + 1, share * dy)
        return dx, dy * (x[low + 1] - x[low])

    return (1 - share) * x[low] + share * x[low + 1], back


def square_root_of_a_matrix(x):
    """The lower triangle L of x = L Lᵀ, defined where x is positive definite."""
    L = np.linalg.cholesky((x + x.T) / 2)
    inverse = np.linalg.inv(L)

    def back(dy):
        p = np.tril(L.T @ np.tril(dy))
        s = inverse.T @ (p - np.diag(np.diag(p)) / 2) @ inverse
        return (s + s.T) / 2

    return L, back


def above_zero(x):
    """How many are returned changes where one changes its sign."""
    dx = np.zeros_like(x)

    def back(dy):
        dx[x > 0] = dy
        return dx

    return x[x > 0], back


def least_squares(w, data):
    off = w - data
    return float((off**2).sum()), 2 * off


def sign(dy, x):
    return dy * np.sign(x)


def zero(dy, x):
    return np.zeros_like(x)


# name -> op, what draws each argument, scales
EVERY, SMALL, ONE = SCALES, (1e-6, 1e-3, 1.0), (1.0,)
RIGHT = {
    "identity": (op(lambda x: 1 * x, lambda dy, x: dy), [normal(3, 4)], EVERY),
    "a view of itself": (op(lambda x: x, lambda dy, x: dy), [normal(3, 4)], EVERY),
    "square": (op(lambda x: x * x, lambda dy, x: 2 * x * dy), [normal(3, 4)], EVERY),
    "cube": (op(lambda x: x**3, lambda dy, x: 3 * x * x * dy), [normal(5)], EVERY),
    "a number without axes": (op(lambda x: x**3, lambda dy, x: 3 * x * x * dy), [normal()], EVERY),
    "product": (op(lambda a, b: a * b, lambda dy, a, b: (dy * b, dy * a)),
                [normal(3, 4), normal(3, 4)], EVERY),
    "quotient": (op(lambda a, b: a / b, lambda dy, a, b: (dy / b, -dy * a / b**2)),
                 [normal(3), positive(3)], EVERY),
    "linear": (op(lambda x, W: x @ W.T, lambda dy, x, W: (dy @ W, dy.T @ x)),
               [normal(3, 4), unit(5, 4)], EVERY),
    "bias": (op(lambda x, b: x + b, lambda dy, x, b: (dy, dy.sum(axis=0))),
             [normal(3, 4), unit(4)], EVERY),
    "sum": (op(lambda x: x.sum(), lambda dy, x: dy * np.ones_like(x)), [normal(3, 4)], EVERY),
    "mean": (op(lambda x: x.mean(axis=0), lambda dy, x: np.tile(dy / 3, (3, 1))),
             [normal(3, 4)], EVERY),
    "variance": (op(lambda x: x.var(axis=-1),
                    lambda dy, x: 0.5 * dy[:, None] * (x - x.mean(axis=-1, keepdims=True))),
                 [normal(3, 4)], EVERY),
    "running sum": (op(lambda x: x.cumsum(axis=-1), lambda dy, x: dy[:, ::-1].cumsum(-1)[:, ::-1]),
                    [normal(3, 5)], EVERY),
    "transposed": (op(lambda x: x.T, lambda dy, x: dy.T), [normal(3, 4)], EVERY),
    "reshaped": (op(lambda x: x.reshape(2, 6), lambda dy, x: dy.reshape(3, 4)),
                 [normal(3, 4)], EVERY),
    "shifted": (op(lambda x: np.pad(x[:, :-1], ((0, 0), (1, 0))),
                   lambda dy, x: np.pad(dy[:, 1:], ((0, 0), (0, 1)))), [normal(2, 5)], EVERY),
    "gathered": (op(lambda x, i: x[i], lambda dy, x, i: (
        np.add.reduce([np.outer(np.arange(4) == j, d) for j, d in zip(i, dy, strict=True)]), None)),
        [normal(4, 3), integers(4, 6)], EVERY),
    "row gradients": (assigned, [normal(4, 3), integers(4, 6)], EVERY),
    "masked": (op(lambda x, m: np.where(m, x, 0), lambda dy, x, m: (np.where(m, dy, 0), None)),
               [normal(3, 4), integers(2, 3, 4)], EVERY),
    "two outputs": (halves, [normal(3, 6)], EVERY),
    "convolution": (convolution, [normal(7), unit(3)], EVERY),
    "inverse": (inverse, [lambda rng, s: s * (np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3)))], EVERY),
    "interpolated": (interpolated, [normal(8), fixed(0.2, 3.5, 6.999)], EVERY),
    "a matrix's square root": (square_root_of_a_matrix, [fixed([1, 0.9999], [0.9999, 1])], ONE),
    "those above 0": (above_zero, [fixed(1e-4, 1, -1e-4, -1, 2)], ONE),
    "none of them": (op(lambda x, W: x @ W, lambda dy, x, W: (dy @ W.T, x.T @ dy)),
                     [normal(0, 3), normal(3, 2)], EVERY),
    "largest": (largest, [normal(3, 4)], EVERY),
    "sorted": (sorted_rows, [normal(3, 4)], EVERY),
    "a buffer of its own": (buffered, [normal(3, 4)], EVERY),
    "relu": (op(lambda x: np.maximum(x, 0), lambda dy, x: dy * (x > 0)), [normal(6, 5)], EVERY),
    "relu, some at 0": (op(lambda x: np.maximum(x, 0), lambda dy, x: dy * (x > 0)),
                        [fixed(0, 1, -1, 0, 1e-7, -1e-7)], ONE),
    "leaky relu": (op(lambda x: np.maximum(x, x / 8), lambda dy, x: dy * np.where(x > 0, 1, 1 / 8)),
                   [normal(4, 5)], EVERY),
    "size": (op(np.abs, sign), [normal(4, 5)], EVERY),
    "x |x|": (op(lambda x: x * abs(x), lambda dy, x: 2 * abs(x) * dy),
              [fixed(0, 1e-9, 0.3, -4)], ONE),
    "square root": (op(np.sqrt, lambda dy, x: dy / (2 * np.sqrt(x))), [positive(12)], EVERY),
    "square root by the pole": (op(np.sqrt, lambda dy, x: dy / (2 * np.sqrt(x))),
                                [fixed(1e-12, 1e-9, 1e-7, 1e-4, 1)], ONE),
    "logarithm": (op(np.log, lambda dy, x: dy / x), [positive(12)], EVERY),
    "logarithm by the pole": (op(np.log, lambda dy, x: dy / x), [fixed(1e-9, 1e-6, 1e-3, 9)], ONE),
    "1/x": (op(lambda x: 1 / x, lambda dy, x: -dy / x**2), [normal(6)], EVERY),
    "x/|x|": (op(lambda x: x / abs(x), zero), [fixed(1e-8, -1e-5, 1e-3, 2)], ONE),
    "of length one": (op(lambda x: x / np.sqrt((x * x).sum()), lambda dy, x: (
        dy - x * (dy * x).sum() / (x * x).sum()) / np.sqrt((x * x).sum())), [normal(4)], EVERY),
    "sine": (op(np.sin, lambda dy, x: dy * np.cos(x)), [normal(3, 4)], EVERY),
    "sine of 3000 x": (op(lambda x: np.sin(3000 * x), lambda dy, x: 3000 * dy * np.cos(3000 * x)),
                       [normal(3, 4)], SMALL),
    "exponential": (op(np.exp, lambda dy, x: dy * np.exp(x)), [normal(3, 4)], SMALL),
    "tanh": (op(np.tanh, lambda dy, x: dy / np.cosh(np.clip(x, -300, 300)) ** 2),
             [normal(3, 4)], EVERY),
    "softmax": (op(softmax, lambda dy, x: softmax_back(dy, softmax(x))), [normal(3, 4)], EVERY),
    "softmax of one": (op(softmax, lambda dy, x: softmax_back(dy, softmax(x))),
                       [normal(3, 1)], EVERY),
    "log-sum-exp": (op(logsumexp, lambda dy, x: dy[:, None] * softmax(x)), [normal(3, 4)], EVERY),
    "cross entropy": (op(cross_entropy, cross_entropy_back), [normal(3, 4), integers(4, 3)], EVERY),
    "layer norm": (layer_norm, [normal(3, 5)], EVERY),
    "layer norm of equal numbers": (
        lambda x: layer_norm(x, 1e-12), [lambda rng, scale: np.full((1, 12), 2.0)], ONE),
    "layer norm, most of it held": (lambda x: layer_norm(x, 0.1), [normal(3, 5)], EVERY),
    "attention": (attention, [normal(3, 2), unit(4, 2), unit(4, 3)], EVERY),
    "attention to one": (attention, [normal(3, 2), unit(1, 2), unit(1, 3)], EVERY),
    "a constant": (op(lambda x: np.ones(3), zero), [normal(4)], EVERY),
    "rounded": (op(np.round, zero), [normal(4)], (1.0, 1e3)),
    "a loss beside a large constant": (
        op(lambda x: (x**2).sum() + 1e4, lambda dy, x: 2 * x * dy), [unit(5)], ONE),
    "a small slope": (op(lambda x: 1e-9 * x, lambda dy, x: 1e-9 * dy), [normal(5)], EVERY),
    "a large slope": (op(lambda x: 1e9 * x, lambda dy, x: 1e9 * dy), [normal(5)], EVERY),
    "a pair of functions": (
        from_pair(lambda a, b: a * b, lambda a, b, dy: (dy * b, dy * a)),
        [normal(3), normal(3)], EVERY),
    "a loss and its gradient": (
        from_loss(lambda w: least_squares(w, np.arange(4.0))), [normal(4)], EVERY),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_lets_pass(name):
    op, drawn, scales = RIGHT[name]
    for scale in scales:
        for seed in range(3):
            rng = np.random.default_rng([seed, round(scale * 1e6)])
            arrays = [draw(rng, scale) for draw in drawn]
            verdict = gradcheck(op, *arrays, seed=seed)
            assert verdict, (scale, verdict)


# ---- Wrong ones


def one_buffer(x):
    """Two calls return one array; what the first call put into it is wrong."""
    dx, calls = np.empty_like(x), []

    def back(dy):
        dx[...] = (2 if calls else 3) * x * dy
        calls.append(1)
        return dx

    return x * x, back


def adding_up(x):
    dx = np.zeros_like(x)

    def back(dy):
        dx[...] += dy * 2
        return dx.copy()

    return 2 * x, back


def one_buffer_for_all_calls(dx=np.zeros((3, 4))):  # noqa: B008
    return op(lambda x: x * x, lambda dy, x: np.multiply(2 * x, dy, out=dx))


def one_value_for_all_calls(y=np.zeros((3, 4))):  # noqa: B008
    return op(lambda x: np.multiply(x, x, out=y), square_back)


def frees_what_it_saved(x):
    saved = [2 * x]
    return x * x, lambda dy: dy * saved.pop()


class Layer:
    """Keeps what its last call saw, as the layers of many a course do."""

    def __call__(self, x):
        self.x = x
        return x**2, lambda dy: 2 * self.x * dy


def writes_to_dy(x):
    def back(dy):
        dy *= np.cos(x)
        return dy

    return np.sin(x), back


def writes_to_x(x):
    def back(dy):
        np.maximum(x, 0, out=x)
        return dy * (x > 0)

    return np.maximum(x, 0), back


def contiguous_only(x):
    def back(dy):
        rows = np.lib.stride_tricks.as_strided(dy, x.shape, x.strides)  # whatever dy's strides
        return 2 * x * rows

    return x * x, back


def in_order_of_memory(x):
    def back(dy):
        return 2 * x * dy.ravel(order="K").reshape(x.shape)

    return x * x, back


def new_mask(rng=np.random.default_rng(0)):  # noqa: B008
    def dropout(x):
        keep = rng.random(x.shape) < 0.5
        return x * keep, lambda dy: dy * keep

    return dropout


def in_float32(x):
    y = (x.astype(np.float32) ** 2).astype(float)
    return y, lambda dy: 2 * x * dy


def back_in_float32(x):
    return np.sin(x), lambda dy: (dy * np.cos(x)).astype(np.float32).astype(float)


def saved_in_float32(x):
    saved = np.cos(x).astype(np.float32)
    return np.sin(x), lambda dy: dy * saved


def float32_all_the_way(x):
    return (2 * x).astype(np.float32), lambda dy: 2 * dy


def assigned_rows(dy, x, ids):
    dx = np.zeros_like(x)
    dx[ids] = dy
    return dx, None


def at_last(gradient):
    """The same, off by an eighth in its last entry."""

    def wrong(*arrays):
        found = gradient(*arrays).copy()
        found.flat[-1] += 0.125
        return found

    return wrong


def stale(table=np.random.default_rng(1).normal(size=(4, 3))):  # noqa: B008
    """Its gradient is of weights it got once, not of those it is given."""
    return op(lambda x, W: x @ W, lambda dy, x, W: (dy @ table.T, x.T @ dy))


def square_back(dy, x):
    return 2 * x * dy


# name -> op, what draws each argument
WRONG = {
    "a missing factor": (op(lambda x: x * x, lambda dy, x: x * dy), [normal(3, 4)]),
    "a factor of 1 + 1e-6": (
        op(lambda x: x * x, lambda dy, x: (2 + 2e-6) * x * dy), [normal(3, 4)]),
    "a factor of 1 + 1e-8": (
        op(lambda x: x * x, lambda dy, x: (2 + 2e-8) * x * dy), [normal(3, 4)]),
    "a wrong sign": (op(np.cos, lambda dy, x: dy * np.sin(x)), [normal(3, 4)]),
    "a wrong sign of one of two": (
        op(lambda a, b: a - b, lambda dy, a, b: (dy, dy)), [normal(3), normal(3)]),
    "arguments exchanged": (
        op(lambda a, b: a * b, lambda dy, a, b: (dy * a, dy * b)), [normal(3), normal(3)]),
    "not transposed": (op(lambda x, W: x @ W, lambda dy, x, W: (dy @ W, x.T @ dy)),
                       [normal(3, 4), normal(4, 4)]),
    "transposed where not": (op(lambda x: x * x, lambda dy, x: (2 * x * dy).T), [normal(4, 4)]),
    "a sum over the wrong axis": (
        op(lambda x, b: x + b, lambda dy, x, b: (dy, dy.sum(axis=1))), [normal(4, 4), normal(4)]),
    "broadcast, not reduced": (
        op(lambda x, b: x + b, lambda dy, x, b: (dy, dy)), [normal(3, 4), normal(4)]),
    "reduced to another rank": (
        op(lambda x, b: x + b, lambda dy, x, b: (dy, dy.sum(axis=0))),
        [normal(3, 4), normal(1, 4)]),
    "a mean without its 1/n": (
        op(lambda x: x.mean(axis=0), lambda dy, x: np.tile(dy, (3, 1))), [normal(3, 4)]),
    "a mean by n of another axis": (
        op(lambda x: x.mean(axis=0), lambda dy, x: np.tile(dy / 4, (3, 1))), [normal(3, 4)]),
    "n - 1 for n": (op(lambda x: x.var(axis=-1), lambda dy, x: (
        2 / 3 * dy[:, None] * (x - x.mean(axis=-1, keepdims=True)))), [normal(3, 4)]),
    "no mask": (op(lambda x: np.maximum(x, 0), lambda dy, x: dy), [normal(3, 4)]),
    "the mask the wrong way": (
        op(lambda x: np.maximum(x, 0), lambda dy, x: dy * (x < 0)), [normal(3, 4)]),
    "the mask of dy": (op(lambda x: np.maximum(x, 0), lambda dy, x: dy * (dy > 0)), [normal(3, 4)]),
    "padding not masked": (
        op(lambda x, m: np.where(m, x, 0), lambda dy, x, m: (dy, None)),
        [normal(3, 4), lambda rng, scale: np.arange(4) < np.array([[4], [2], [1]])]),
    "a term detached": (op(lambda x: x * np.tanh(x), lambda dy, x: dy * np.tanh(x)), [unit(3, 4)]),
    "a softmax without its sum": (op(softmax, lambda dy, x: softmax(x) * dy), [normal(3, 4)]),
    "a softmax that passes nothing": (op(softmax, zero), [unit(3, 4)]),
    "a softmax over the wrong axis": (
        op(softmax, lambda dy, x: softmax_back(dy.T, softmax(x).T).T), [unit(4, 4)]),
    "a norm without the mean's part": (lambda x: (layer_norm(x)[0], lambda dy: (
        dy - layer_norm(x)[0] * (dy * layer_norm(x)[0]).mean(axis=-1, keepdims=True)
    ) / x.std(axis=-1, keepdims=True)), [normal(3, 5)]),
    "a norm of constant variance": (lambda x: (layer_norm(x)[0], lambda dy: (
        dy - dy.mean(axis=-1, keepdims=True)) / x.std(axis=-1, keepdims=True)), [normal(3, 5)]),
    "shifted one too few": (op(lambda x: np.pad(x[:-1], (1, 0)), lambda dy, x: dy), [normal(6)]),
    "shifted the wrong way": (
        op(lambda x: np.pad(x[:-1], (1, 0)), lambda dy, x: np.pad(dy[:-1], (1, 0))), [normal(6)]),
    "a running sum not reversed": (
        op(lambda x: x.cumsum(axis=-1), lambda dy, x: dy.cumsum(axis=-1)), [normal(3, 5)]),
    "a convolution not flipped": (
        lambda x, w: (convolution(x, w)[0],
                      lambda dy: (convolution(dy, w)[0], convolution(x, w)[1](dy)[1])),
        [normal(7), normal(3)]),
    "rows assigned, not added": (
        op(lambda x, i: x[i], assigned_rows),
        [normal(4, 3), lambda rng, scale: np.array([0, 2, 2, 1])]),
    "one entry off": (op(lambda x: x * x, at_last(square_back)), [normal(3, 4)]),
    "a sure loss off by a percent": (
        op(cross_entropy, lambda dy, x, i: (1.01 * cross_entropy_back(dy, x, i)[0], None)),
        [lambda rng, scale: rng.normal(size=(3, 4)) + 9 * np.eye(4)[:3],
         lambda rng, scale: np.arange(3)]),
    "the old weights": (stale(), [normal(2, 4), normal(4, 3)]),
    "what the last call saw": (Layer(), [normal(3, 4)]),
    "one buffer, wrong at first": (one_buffer, [normal(3, 4)]),
    "one buffer for all calls": (one_buffer_for_all_calls(), [normal(3, 4)]),
    "one value for all calls": (one_value_for_all_calls(), [normal(3, 4)]),
    "a second call that raises": (frees_what_it_saved, [normal(3, 4)]),
    "added up over calls": (adding_up, [normal(3, 4)]),
    "dy written to": (writes_to_dy, [normal(3, 4)]),
    "x written to": (writes_to_x, [normal(3, 4)]),
    "made for contiguous dy": (contiguous_only, [normal(3, 4)]),
    "made for one order of memory": (in_order_of_memory, [normal(3, 4)]),
    "a new mask at each call": (new_mask(), [normal(3, 4)]),
    "float32 forward": (in_float32, [normal(3, 4)]),
    "float32 backward": (back_in_float32, [normal(3, 4)]),
    "float32 in what is saved": (saved_in_float32, [normal(3, 4)]),
    "a gradient of float32": (
        op(lambda x: x * x, lambda dy, x: (2 * x * dy).astype(np.float32)), [normal(3, 4)]),
    "the size of dy": (op(lambda x: x * x, lambda dy, x: 2 * x * abs(dy)), [normal(3, 4)]),
    "dy squared": (op(lambda x: 1 * x, lambda dy, x: dy * dy), [normal(3, 4)]),
    "dy clipped": (op(lambda x: x * x, lambda dy, x: 2 * x * np.clip(dy, -1, 1)), [normal(3, 4)]),
    "dy clipped high": (
        op(lambda x: x * x, lambda dy, x: 2 * x * np.clip(dy, -1e3, 1e3)), [normal(3, 4)]),
    "a small dy left out": (
        op(lambda x: x * x, lambda dy, x: 2 * x * dy * (abs(dy) > 1e-5)), [normal(3, 4)]),
    "a gradient clipped": (op(lambda x: x * x, lambda dy, x: (
        2 * x * dy / max(1, np.linalg.norm(2 * x * dy)))), [unit(3, 4)]),
    "dy normed": (op(lambda x: x * x, lambda dy, x: (
        2 * x * dy * np.linalg.norm(dy[0]) / np.linalg.norm(dy))), [normal(3, 4)]),
    "dy left out": (op(lambda x: x * x, lambda dy, x: 2 * x), [normal(3, 4)]),
    "something added": (op(lambda x: x * x, lambda dy, x: 2 * x * dy + 1e-3), [normal(3, 4)]),
    "one of two outputs forgotten": (
        lambda x: ((x * x, 3 * x), lambda dys: 2 * x * dys[0]), [normal(3, 4)]),
    "outputs exchanged": (
        lambda x: ((2 * x, 3 * x), lambda dys: 2 * dys[1] + 3 * dys[0]), [normal(3, 4)]),
    "not a number": (op(lambda x: x * x, lambda dy, x: 2 * x * dy * np.nan), [normal(3, 4)]),
    "no gradient": (op(lambda x: x * x, lambda dy, x: None), [normal(3, 4)]),
    "a gradient of ids": (
        op(lambda x, i: x[i], lambda dy, x, i: (0 * x, 1.0 * i)), [normal(4, 3), integers(4, 5)]),
    "beside a constant that hides it": (
        op(lambda x: x.sum() + 1e13, lambda dy, x: 2 * dy * np.ones_like(x)), [normal(3)]),
    "beside a constant that hides all": (
        op(lambda x: x.sum() + 1e16, lambda dy, x: dy * 0 * x), [normal(3)]),
    "half a slope by a kink": (op(np.abs, lambda dy, x: dy * np.sign(x) / 2), [fixed(1e-5, -3e-4)]),
    "half a slope by a pole": (op(np.log, lambda dy, x: dy / x / 2), [fixed(1e-6, 1e-3, 1)]),
    "a steep slope off by 1e-5": (op(lambda x: np.sin(3000 * x), lambda dy, x: (
        3000.03 * dy * np.cos(3000 * x))), [normal(3)]),
    "the inner slope of a steep one of many": (
        lambda x: op(lambda x, c: np.sin(c * x), lambda dy, x, c: dy * np.cos(c * x))(
            x, np.array([1, 3e4, 1])), [unit(3)]),
    "too steep for the argument": (
        op(lambda x: np.sin(x * x), lambda dy, x: 3 * x * dy * np.cos(x * x)), [fixed(3e9, 1e10)]),
    "a pair, one wrong": (
        from_pair(lambda a, b: a * b, lambda a, b, dy: (dy * b, dy * b)), [normal(3), normal(3)]),
    "a loss, its gradient halved": (
        from_loss(lambda w: (least_squares(w, 1.0)[0], least_squares(w, 1.0)[1] / 2)), [normal(3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_refuses(name):
    op, drawn = WRONG[name]
    for scale in (1e-3, 1.0, 1e3):
        for seed in range(4):
            rng = np.random.default_rng([seed, round(scale * 1e6)])
            arrays = [draw(rng, scale) for draw in drawn]
            verdict = gradcheck(op, *arrays, seed=seed)
            assert not verdict, (scale, verdict)
            assert verdict.mismatches or verdict.unchecked


def test_the_jury_is_large_enough():
    assert len(RIGHT) >= 40 and len(WRONG) >= 40
