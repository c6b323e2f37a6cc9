"""What the answers to tests/exercises.py must do: `accept` raises an AssertionError that says why.

A check looks at what an answer does, never at how it is written.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

from minisum import ops
from minisum.gradcheck import gradcheck, grid
from minisum.saved import saved_arrays

ROOT = Path(__file__).parent.parent


def check_cube(cube):
    x = random(2, 3)
    assert isinstance(cube(x.copy()), tuple), "return two things: the value, and the function back"
    assert np.allclose(cube(x.copy())[0], x**3), "the value is not x³"
    must_pass(gradcheck(cube, x))


def check_quadratic_form(op):
    x, W = random(3, 4), random(4, 4)
    assert np.allclose(op(x, W)[0], [row @ W @ row for row in x]), "the value is wrong"
    must_pass(gradcheck(op, x, W))


def check_first_token(op):
    x = grid(np.random.default_rng(0), (4, 3, 2))
    mask = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1], [0, 0, 0]], bool)
    poisoned = np.where(mask[:, :, None], x, np.nan)
    y, back = op(poisoned, mask)
    assert np.array_equal(y, [x[0, 0], x[1, 0], x[2, 1], [0, 0]]), "not the first real tokens"
    dx, none = back(np.ones((4, 2)))
    assert none is None, "a mask has no gradient: None"
    assert not dx[~mask].any(), "padding has a gradient"
    must_pass(gradcheck(op, x, mask, exact=True))


def check_table_gradient(gradient):
    ids, dx = np.array([[1, 3, 1], [3, 3, 0]]), random(2, 3, 4)
    found = gradient(ids, dx, 5)
    wanted = ops.embed(ids, np.zeros((5, 4)))[1](dx)[1].dense()
    assert np.shape(found) == (5, 4), f"the table has shape (5, 4), the gradient {np.shape(found)}"
    assert np.allclose(found[[2, 4]], 0), "words that were not read have a gradient"
    assert np.allclose(found[0], wanted[0]), "the gradient of a word that occurs once is wrong"
    assert np.allclose(found, wanted), "a word that occurs k times receives the sum of k gradients"


def check_tied_layers(layers):
    x, W = random(3, 4), random(5, 4, seed=1)

    def op(x, W):
        y, back = layers({"W": W}, x)

        def back_alone(dy):
            grads = {"W": np.zeros_like(W)}
            return back(dy, grads), grads["W"]

        return y, back_alone

    assert np.allclose(op(x, W)[0], np.maximum(x @ W.T, 0) @ W), "the value is wrong"
    must_pass(gradcheck(op, x, W))
    grads = {"W": np.ones_like(W)}
    mine = grads["W"]
    _, back = layers({"W": W}, x)
    for _ in range(2):
        back(x, grads)
    assert mine is grads["W"], "grads['W'] is another array now: add in place"
    assert np.allclose(mine, 1 + 2 * op(x, W)[1](x)[1]), "back must add to what is there already"


def check_fooled_by_ones(make):
    op, x = make(), random(3, 4)
    y, back = op(x)
    step, along = 1e-6, random(3, 4, seed=1)
    slope = (op(x + step * along)[0].sum() - op(x - step * along)[0].sum()) / (2 * step)
    fooled = abs((back(np.ones_like(y)) * along).sum() - slope) < 1e-6
    assert fooled, "with a dy of ones the gradient is not right"
    assert not gradcheck(op, x), "this gradient is right for every dy"


def check_what_notices(answer):
    name = answer()
    assert "::" in name, "name one test: tests/ops/test_invariants.py::test_..."
    as_it_is, changed = run_test(name)
    assert as_it_is == 0, f"pytest finds no test {name} that passes now"
    assert changed != 0, f"{name} passes with x >= 0 as well"


def check_loss_of_a_batch(combine):
    logits, targets = random(6, 3), np.array([0, 2, -1, 1, 1, -1])
    shards = [slice(0, 2), slice(2, 3), slice(3, 6)]
    losses = [float(ops.cross_entropy(logits[s], targets[s])[0]) for s in shards]
    counts = [int((targets[s] >= 0).sum()) for s in shards]
    whole = float(ops.cross_entropy(logits, targets)[0])
    found = combine(losses, counts)
    assert np.isclose(found, whole), f"{losses} over {counts} targets: {whole}, not {found}"
    assert combine([0.0, 0.0], [0, 0]) == 0, "a batch without targets has loss 0"


def check_numbers_saved_by_attention(count):
    for B, H, n, h in ((1, 2, 7, 3), (2, 1, 16, 4)):
        q, k, v = (random(B, H, n, h, seed=seed) for seed in range(3))
        kept = sum(a.size for a in saved_arrays(ops.attention(q, k, v)[1]) if a.ndim)
        found = count(B, H, n, h)
        assert found == kept, f"B {B}, H {H}, n {n}, h {h}: {kept} numbers are kept, not {found}"


def check_mean_so_far(mean):
    x = random(2, 7, 3)
    wanted = np.cumsum(x, axis=1) / np.arange(1, 8)[:, None]
    assert np.allclose(mean(x)[0], wanted), "read whole, the means are wrong"
    for cuts in ([1, 2, 3, 4, 5, 6], [3], [5, 6]):
        state, read = None, []
        for chunk in np.split(x, cuts, axis=1):
            y, state = mean(chunk, state)
            read.append(y)
        assert np.allclose(np.concatenate(read, axis=1), wanted), f"cut at {cuts} they differ"


def check_decayed_sum(op):
    u, a = random(2, 5, 3), np.array([0.9, 0.5, -0.3])
    wanted = [u[:, 0]]
    for t in range(1, 5):
        wanted.append(a * wanted[-1] + u[:, t])
    assert np.allclose(op(u, a)[0], np.stack(wanted, axis=1)), "the value is wrong"
    must_pass(gradcheck(op, u, a))


def check_epoch_order(order):
    before = np.random.get_state()[2]  # noqa: NPY002 (it must not move)
    at_once = [np.asarray(order(7, epoch, 50)) for epoch in (2, 0, 1, 2)]
    for permutation in at_once:
        assert np.array_equal(np.sort(permutation), np.arange(50)), "not a permutation"
    first, *_, again = at_once
    assert np.array_equal(first, again), "epoch 2 asked for again has another order"
    assert not np.array_equal(at_once[0], at_once[1]), "two epochs have the same order"
    assert not np.array_equal(order(8, 2, 50), first), "two seeds have the same order"
    assert not np.array_equal(order(9, 0, 50), order(8, 1, 50)), "seed + epoch: they run together"
    assert np.random.get_state()[2] == before, "NumPy's global generator has moved"  # noqa: NPY002


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


def accept(name, answer):
    """Raise AssertionError with the reason if `answer` is not right."""
    CHECKS[name](answer)


def main(answers):
    """Print a line for each exercise of the module `answers`; 0 if all are right, else 1."""
    solved = 0
    for number, name in enumerate(CHECKS, 1):
        try:
            accept(name, getattr(answers, name))
            status = "right"
            solved += 1
        except NotImplementedError:
            status = "not written yet"
        except AssertionError as reason:
            status = f"wrong: {reason}"
        except Exception as error:  # whatever a half-written answer stumbles over
            status = f"wrong: {type(error).__name__}: {error}"
        print(f"{number:2}  {name:27} {status}")
    print(f"{solved} of {len(CHECKS)} are right")
    return 0 if solved == len(CHECKS) else 1


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def must_pass(verdict):
    assert verdict, str(verdict)


# One test, as things are and with another derivative of relu at 0; prints pytest's exit statuses.
TWICE = """
import sys, pytest
import numpy as np
from minisum import ops

def changed_relu(x):
    return np.maximum(x, 0), lambda dy: dy * (x >= 0)

statuses = []
for ops.relu in (ops.relu, changed_relu):
    statuses.append(int(pytest.main(["-p", "no:cacheprovider", sys.argv[1]])))
print(*statuses)
"""


def run_test(name):
    """pytest's exit statuses for the test `name`: with relu as it is, and changed. 0 is passed."""
    child = subprocess.run(
        [sys.executable, "-c", TWICE, name], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert child.returncode == 0, f"pytest does not run: {child.stderr.strip()[-200:]}"
    return [int(status) for status in child.stdout.splitlines()[-1].split()]
