"""Linear maps by products that can be recorded."""

from minisum.fast.cuda import compiling
from minisum.fast.cuda.passes import add_bias
from minisum.fast.cuda.precision import factor
from minisum.fast.cuda.recording import matmul
from minisum.fast.cuda.sums import sum_leading
from minisum.ops.products import transposed


def linear(x, W, b=None):
    if not compiling.runs_on(x, W, b):
        return NotImplemented
    shape, (outputs, _), has_bias = x.shape, W.shape, b is not None
    rows, W = factor(x.reshape(-1, shape[-1])), factor(W)
    y = matmul(rows, W.T)
    if has_bias:
        add_bias(y, b)

    def back(dy):
        read = factor(dy.reshape(-1, outputs))
        dx, dW = matmul(read, W).reshape(shape), matmul(read.T, rows)
        return (dx, dW, sum_leading(dy)) if has_bias else (dx, dW)

    return y.reshape(*shape[:-1], outputs), back


def full_product(q, k, v, state=None):
    if not compiling.runs_on(q, k, v, state):
        return NotImplemented
    has_state, S = state is not None, matmul(transposed(k), v)
    S = S + state if has_state else S

    def back(gradients):
        (dy, dlast), qt = gradients, transposed(q)
        dS = matmul(qt, dy) if dlast is None else matmul(qt, dy) + dlast
        dq, dk = matmul(dy, transposed(S)), matmul(v, transposed(dS))
        return dq, dk, matmul(k, dS), dS if has_state else None

    return (matmul(q, S), S), back
