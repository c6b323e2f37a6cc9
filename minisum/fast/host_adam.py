"""Adam and the average in one pass over pieces of the vectors, which threads share."""

import math

import numpy as np

# Entries a piece: its gradient, parameters, moments and average (1.3 MB) stay in a core's cache.
PIECE = 65536


def adam_update(theta, m, v, g, t, lr, betas, eps, decay, clip, scale, average, rate, workers):
    """The formula in three arrays of a piece. No entry's result depends on the cut."""
    beta1, beta2 = betas
    # Both sides of the fraction times root, which spares a pass that divides √v by it.
    root = math.sqrt(1 - beta2**t)

    def update(piece):
        parameters, first, second, gradient = theta[piece], m[piece], v[piece], g[piece]
        if clip is not None:
            gradient = np.clip(gradient, -clip, clip)
        if scale is not None:
            gradient = gradient * scale
        change = gradient - first
        change *= 1 - beta1
        first += change
        np.multiply(gradient, gradient, out=change)
        change -= second
        change *= 1 - beta2
        second += change
        if decay is not None:
            parameters -= lr * decay[piece] * parameters
        denominator = np.sqrt(second, out=change)
        denominator += eps * root
        quotient = np.divide(first, denominator, out=denominator)
        quotient *= lr * root / (1 - beta1**t)
        parameters -= quotient
        if average is not None:
            away = np.subtract(parameters, average[piece], out=quotient)
            away *= rate
            average[piece] += away

    def work(worker):
        for start in range(worker * PIECE, theta.size, workers.count * PIECE):
            update(slice(start, start + PIECE))

    workers.each(work)
