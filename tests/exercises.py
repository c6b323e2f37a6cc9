"""Twelve exercises, one for each stop of the reading path in minisum/README.md. Fill in a
function, then run

    python tests/exercises.py

which checks your answers and says what is wrong with a wrong one. Right answers, and wrong ones
that the checks refuse, are in tests/exercise_answers.py.

An operation returns its value and `back`, which turns the gradient of the value into the gradients
of the arrays: see minisum/ops/__init__.py.
"""

import sys
from pathlib import Path


def cube(x):
    """minisum/ops/activations.py: y = x³, any shape, with its gradient.

    -> y, back; back(dy) -> dx.
    """
    raise NotImplementedError


def quadratic_form(x, W):
    """minisum/ops/linear.py: y[b] = x[b] @ W @ x[b].T.   x (B, d), W (d, d) -> y (B,)

    The same x stands on both sides of W. -> y, back; back(dy) -> dx, dW.
    """
    raise NotImplementedError


def first_token(x, mask):
    """minisum/ops/pooling.py: y[b] is the first real token of text b, or 0 if it has none.

    x (B, n, d), mask (B, n) bool -> y (B, d), back; back(dy) -> dx, None. Padding may hold NaN
    and may be on the left.
    """
    raise NotImplementedError


def table_gradient(ids, dx, words):
    """minisum/ops/embedding.py: the gradient of the table behind x = table[ids].

    ids (B, n) integer, dx (B, n, d) -> dtable (words, d). NumPy alone; some words occur twice.
    """
    raise NotImplementedError


def tied_layers(params, x):
    """minisum/models/classifier.py: y = relu(x @ W.T) @ W, the same W = params["W"] twice.

    x (B, d), W (o, d) -> y (B, d), back; back(dy, grads) adds W's gradient into grads["W"], in
    place, and returns dx.
    """
    raise NotImplementedError


def fooled_by_ones():
    """minisum/gradcheck.py: why is the cotangent random?

    Return an op of one array, op(x) -> y, back, whose `back` is wrong, but right when dy is all
    ones, for every x (3, 4).
    """
    raise NotImplementedError


def what_notices():
    """tests/ops/test_invariants.py: which test notices x >= 0 for x > 0 in relu's backward pass?

    Return the name of the test as pytest takes it: "tests/ops/test_invariants.py::test_...". It
    passes now and fails then. (Why does test_gradient_is_exact[relu] not notice?)
    """
    raise NotImplementedError


def loss_of_a_batch(losses, counts):
    """minisum/shards.py: the mean loss over a batch, from the mean losses of its shards.

    losses: a list of numbers, the mean over each shard's own targets; counts: how many targets
    each has. A shard without targets has loss 0, and so has a batch without targets.
    """
    raise NotImplementedError


def numbers_saved_by_attention(B, H, n, h):
    """minisum/ops/softmax_attention.py: how many numbers does the backward pass keep?

    q, k and v all (B, H, n, h), no mask. (From which n on are most of them weights?)
    """
    raise NotImplementedError


def mean_so_far(x, state=None):
    """minisum/mixers/running_mean.py: y_t = the mean of x_0 ... x_t, read in chunks of any size.

    x (B, n, d), state None at the start of the text -> y (B, n, d) and the state after it.
    """
    raise NotImplementedError


def decayed_sum(u, a):
    """minisum/ops/running.py: h_t = a ⊙ h_{t-1} + u_t, h_0 = u_0, by a plain loop over tokens.

    u (B, n, d), a (d,) -> h (B, n, d), back; back(dh) -> du, da.
    """
    raise NotImplementedError


def epoch_order(seed, epoch, rows):
    """train/loop.py, minisum/text/batches.py: the order in which an epoch reads its rows.

    -> a permutation of 0 ... rows - 1, different for every epoch and every seed. A run that is
    resumed in this epoch must get the same one without repeating the epochs before.
    """
    raise NotImplementedError


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent.parent))  # minisum, where it is not installed
    from exercise_checks import main

    sys.exit(main(sys.modules[__name__]))
