"""Numbers beside a text: each numeric column gets two dense layers of its own, its tower."""

import numpy as np

from minisum import init
from minisum.ops import linear, relu


def towers(params, numbers):
    """A vector (B, d) for each numeric column, by two dense layers of its own.

    numbers (B, k, f) -> list of k vectors; back(list of their gradients, grads).
    """
    vectors, backs = [], []
    for i in range(numbers.shape[1]):
        hidden, back_first = dense(params, numbers[:, i], f"tower{i}.1")
        vector, back_second = dense(params, hidden, f"tower{i}.2")
        vectors.append(vector)
        backs.append((back_first, back_second))

    def back(dvectors, grads):
        for (back_first, back_second), dvector in zip(backs, dvectors, strict=True):
            back_first(back_second(dvector, grads), grads)

    return vectors, back


def init_towers(rng, columns, inputs, width):
    arrays = {}
    for i in range(columns):
        arrays |= init_dense(rng, f"tower{i}.1", width, inputs)
        arrays |= init_dense(rng, f"tower{i}.2", width, width)
    return arrays


def dense(params, x, name):
    """y = relu(x @ W.T + b) with the arrays {name}.W and {name}.b; back(dy, grads) -> dx."""
    raw, back_linear = linear(x, params[f"{name}.W"], params[f"{name}.b"])
    y, back_relu = relu(raw)

    def back(dy, grads):
        dx, dW, db = back_linear(back_relu(dy))
        grads[f"{name}.W"] += dW
        grads[f"{name}.b"] += db
        return dx

    return y, back


def init_dense(rng, name, fan_out, fan_in):
    W = init.glorot_uniform(rng, fan_out, fan_in)
    return {f"{name}.W": W, f"{name}.b": np.zeros(fan_out)}
