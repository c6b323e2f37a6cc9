"""The checker checked: it takes right gradients, refuses wrong ones, and says what is wrong."""

import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from conftest import XP

from minisum import ops
from minisum.gradcheck import from_loss, from_pair, gradcheck, grid
from minisum.ops.embedding import RowGradient


def normal(*shape, seed=0):
    return XP.asarray(np.random.default_rng(seed).normal(size=shape))


def eighths(*shape, seed=0, low=-1.0):
    return XP.asarray(grid(np.random.default_rng(seed), shape, low))


def op_of(value, gradients):
    """An op in the protocol from a formula and a (right or wrong) formula of its gradients."""

    def op(*arrays):
        return value(*arrays), lambda dy: gradients(dy, *arrays)

    return op


def softmax(x):
    p = XP.exp(x - x.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def softmax_gradient(dy, x):
    p = softmax(x)
    return p * (dy - (dy * p).sum(axis=-1, keepdims=True))


def linear_value(x, W):
    return x @ W.T


def linear_gradient(dy, x, W):
    return dy @ W, dy.T @ x


def assigned_rows(dx, ids, table):
    """The scatter that keeps one of each repeated id."""
    dtable = XP.zeros_like(table)
    dtable[ids] = dx
    return None, dtable


def at_one_entry(gradients):
    """The same gradients, the first of them off by 2⁻³ in its last entry."""

    def wrong(*arrays):
        first, *rest = gradients(*arrays)
        first = first.copy()
        first[(-1,) * first.ndim] += 0.125
        return first, *rest

    return wrong


X, W, SQUARE = (3, 4), (5, 4), (4, 4)

# name -> value, gradients, shapes of the arguments, which of them the verdict must name
WRONG_VALUES = {
    "a term dropped": (
        lambda x: x * x * x + x,
        lambda dy, x: dy * (3 * x * x), [X], 0),
    "a sign flipped": (
        linear_value,
        lambda dy, x, W: (dy @ W, -(dy.T @ x)), [X, W], 1),
    "transposed": (
        linear_value,
        lambda dy, x, W: (dy @ W.T, dy.T @ x), [SQUARE, SQUARE], 0),
    "a factor of 1 + 1e-5": (
        linear_value,
        lambda dy, x, W: ((1 + 1e-5) * (dy @ W), dy.T @ x), [X, W], 0),
    "no gradient through a softmax": (
        softmax,
        lambda dy, x: XP.zeros_like(x), [X], 0),
    "a softmax without its second term": (
        softmax,
        lambda dy, x: softmax(x) * dy, [X], 0),
    "one entry of many": (
        linear_value,
        at_one_entry(linear_gradient), [(30, 4), W], 0),
    "not a number": (
        linear_value,
        lambda dy, x, W: (dy @ W, XP.full_like(W, XP.nan)), [X, W], 1),
}  # fmt: skip


CURVED = ("a term dropped", "no gradient through a softmax", "a softmax without its second term")


@pytest.mark.parametrize(
    "name, exact",
    [
        (name, exact)
        for name in WRONG_VALUES
        for exact in (False, True)
        if not (exact and name in CURVED)
    ],
)
def test_refuses(name, exact):
    value, gradients, shapes, argument = WRONG_VALUES[name]
    for seed in range(5):
        draw = eighths if exact else normal
        arrays = [draw(*shape, seed=seed + i) for i, shape in enumerate(shapes)]
        verdict = gradcheck(op_of(value, gradients), *arrays, exact=exact, seed=seed)
        assert not verdict and verdict.mismatches
        assert {m.argument for m in verdict.mismatches} == {f"argument {argument}"}


def test_a_zero_softmax_gradient_would_pass_with_ones():
    """Why the cotangent is random: with ones, what is wrong above is right."""
    assert abs(softmax_gradient(XP.ones(X), normal(*X))).max() < 1e-15


@pytest.mark.parametrize("exact", [False, True])
def test_refuses_a_scatter_that_assigns(exact):
    op = op_of(lambda ids, table: table[ids], assigned_rows)
    ids = XP.asarray([[0, 2, 2], [1, 2, 0]])
    verdict = gradcheck(op, ids, eighths(3, 4), exact=exact)
    assert not verdict
    assert {m.argument for m in verdict.mismatches} == {"argument 1"}
    assert gradcheck(ops.embed, ids, eighths(3, 4), exact=exact)


def accumulating(x):
    total = XP.zeros_like(x)

    def back(dy):
        nonlocal total
        total = total + dy
        return total

    return 1.0 * x, back


def writing_forward(x):
    x *= 2
    return 1.0 * x, lambda dy: dy


def writing_backward(x):
    def back(dy):
        x[...] = 0
        return 2 * dy

    return 2 * x, back


def writing_to_the_cotangent(x):
    positive = x > 0

    def back(dy):
        dy *= positive
        return dy

    return XP.where(positive, x, 0), back


def writing_to_ids(ids, table):
    def back(dx):
        dtable = ops.embed(ids, table)[1](dx)[1]
        ids[...] = 0
        return None, dtable

    return table[ids], back


PROTOCOL = {
    "a second call that accumulates": (accumulating, [normal(*X)], "second call"),
    "forward writes to its argument": (writing_forward, [normal(*X)], "left alone"),
    "backward writes to an argument": (writing_backward, [normal(*X)], "left alone"),
    "backward writes to its cotangent": (writing_to_the_cotangent, [normal(*X)], "left alone"),
    "backward writes to ids": (
        writing_to_ids, [XP.asarray([[0, 1], [1, 1]]), normal(2, 3)], "left alone"),
    "a shape that broadcasts": (
        op_of(lambda x, b: x + b, lambda dy, x, b: (dy, dy)), [normal(3, 4), normal(4)],
        r"\(3, 4\), but must be \(4,\)"),
    "a gradient of another type": (
        op_of(lambda x: 2 * x, lambda dy, x: (2 * dy).astype("float32")), [eighths(*X)], "float32"),
    "None for a real argument": (
        op_of(linear_value, lambda dy, x, W: (None, dy.T @ x)), [normal(*X), normal(*W)], "None"),
    "an array for ids": (
        op_of(lambda ids, table: table[ids],
              lambda dx, ids, table: (ids, ops.embed(ids, table)[1](dx)[1])),
        [XP.asarray([[0, 1]]), normal(2, 3)], "None"),
    "too few gradients": (
        op_of(linear_value, lambda dy, x, W: (dy @ W,)), [normal(*X), normal(*W)], "number"),
    "too many gradients": (
        op_of(lambda x: 2 * x, lambda dy, x: (2 * dy, dy)), [normal(*X)], "number"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROTOCOL)
def test_refuses_a_breach_of_the_protocol(name):
    op, arrays, message = PROTOCOL[name]
    verdict = gradcheck(op, *[a.copy() for a in arrays])
    assert not verdict
    assert re.search(message, repr(verdict)), verdict


def test_accepts_what_is_right():
    assert gradcheck(op_of(linear_value, linear_gradient), eighths(*X), eighths(*W), exact=True)
    assert gradcheck(op_of(linear_value, linear_gradient), normal(*X), normal(*W))
    assert gradcheck(op_of(softmax, softmax_gradient), normal(*X))
    assert gradcheck(ops.linear, normal(*X), normal(*W))
    assert gradcheck(ops.sum_tokens, normal(2, 3, 4), None)
    assert gradcheck(ops.sum_tokens, normal(2, 3, 4), XP.asarray([[True] * 3, [False] * 3]))


def test_several_outputs():
    def halves(x):
        middle = x.shape[-1] // 2
        return (x[..., :middle] * 2, x[..., middle:] * 3), lambda dys: XP.concatenate(
            [2 * dys[0], 3 * dys[1]], axis=-1
        )

    def swapped(x):
        y, back = halves(x)
        return y, lambda dys: back(dys[::-1])

    for exact in (False, True):
        x = eighths(3, 4)
        assert gradcheck(halves, x, exact=exact)
        assert not gradcheck(swapped, x, exact=exact)


def test_the_message_says_it_all():
    def triple(x, scale):
        return x * scale, lambda dy: (3 * dy, dy * x)

    verdict = gradcheck(triple, XP.asarray([0.5, 0.25]), XP.asarray([2.0, 2.0]), exact=True, seed=7)
    text = repr(verdict)
    assert text.startswith("gradcheck of triple(x (2,), scale (2,)), exact (==), seed 7: ")
    assert "3 wrong" in text and "0 skipped on a kink" in text
    wrong = verdict.mismatches[-1]
    assert (wrong.argument, wrong.place) == ("x", "entry (1,)")
    assert wrong.analytic == 1.5 * wrong.numeric
    assert f"x, entry (1,): back gives {wrong.analytic}, but it is {wrong.numeric}" in text
    assert "(ratio 1.5)" in text and "x, random direction" in text
    assert repr(gradcheck(triple, normal(2), normal(2), exact=False, seed=7)).count("seed 7") == 1


def test_many_mismatches_are_counted_not_listed():
    verdict = gradcheck(op_of(lambda x: x * 1.0, lambda dy, x: 2 * dy), normal(4, 3))
    assert len(verdict.mismatches) == 13
    assert repr(verdict).endswith("and 5 more")
    verdict = gradcheck(op_of(lambda x: x * 1.0, lambda dy, x: 2 * dy), normal(7))
    assert len(verdict.mismatches) == 8 == len(repr(verdict).splitlines()) - 1


def test_no_argument_is_crowded_out_of_the_message():
    verdict = gradcheck(op_of(lambda x, b: x + b, lambda dy, x, b: (2 * dy, 3 * dy)), *[
        normal(3, 4) for _ in "xb"
    ])  # fmt: skip
    lines = repr(verdict).splitlines()[1:]
    assert [line.count("argument 0") for line in lines] == [1] * 4 + [0] * 5
    assert [line.count("argument 1") for line in lines] == [0] * 4 + [1] * 4 + [0]
    assert lines[-1] == "  and 18 more"


def test_kinks_are_reported():
    verdict = gradcheck(ops.relu, XP.asarray([0.0, 0.5, -0.5]), exact=True)
    assert verdict and verdict.kinks == 2 and verdict.checked == 2
    assert "2 skipped on a kink" in repr(verdict)


@pytest.mark.parametrize("lead", range(8, 17))
def test_a_sure_answer_is_not_refused_for_its_roundings(lead):
    """A loss of e^-lead is what two numbers near 1 leave, so its roundings are not small beside it.

    A mistake of a thousandth is.
    """
    logits, targets = np.array([[0.3, lead]]), np.array([1])

    def nearly_right(logits, targets):
        loss, back = ops.cross_entropy(logits, targets)
        return loss, lambda dloss: (back(dloss)[0] * 1.001, None)

    assert gradcheck(ops.cross_entropy, logits, targets)
    assert len(gradcheck(nearly_right, logits, targets).mismatches) == 3


def test_a_kink_excuses_no_more_than_its_sides_differ():
    """Gaps of a smooth op are seen while they grow; then roundings of the constant hide them."""
    op = op_of(lambda x: XP.arctan(10 * x) + 1e9, lambda dy, x: -10 * dy / (1 + 100 * x * x))
    verdict = gradcheck(op, XP.asarray([1e-4]))
    assert len(verdict.mismatches) == 1 and not verdict.kinks


@pytest.mark.parametrize("lead", (40, 100, 700))
def test_an_answer_so_sure_that_its_loss_is_0(lead):
    assert gradcheck(ops.cross_entropy, np.array([[0.3, lead, 0.1]]), np.array([1]))


@pytest.mark.parametrize("speed", (30, 100, 300, 500, 3000, 1e5))
def test_a_steep_op_is_not_refused_for_the_length_of_the_step(speed):
    """Extrapolated slopes of sin(speed x) are off by (speed step)⁴ / 480 of themselves.

    A mistake of a millionth is a mistake.
    """
    x = np.array([0.1, -0.2])
    for factor in (1, 1 - 1e-6, 1 + 1e-6):
        slope = lambda dy, x, factor=factor: dy * factor * speed * np.cos(speed * x)  # noqa: E731
        verdict = gradcheck(op_of(lambda x: np.sin(speed * x), slope), x)
        assert bool(verdict) == (factor == 1), verdict


@pytest.mark.parametrize("slope, mistake", [(1e-9, 0.05), (1e-5, 4e-6), (1.0, 1e-6)])
def test_roundings_of_a_shorter_step_excuse_no_mistake(slope, mistake):
    """A line has no truncation error, so nothing speaks for the shorter step."""
    for factor in (1, 1 - mistake, 1 + mistake):
        op = op_of(lambda x: 1 + slope * x, lambda dy, x, f=factor: dy * slope * f)
        assert bool(gradcheck(op, np.array([0.3]))) == (factor == 1)


@pytest.mark.parametrize(
    "f, slope, at",
    [(np.abs, np.sign, 3e-4), (np.sqrt, lambda x: 0.5 / np.sqrt(x), 1.1e-3),
     (lambda x: 1 / x, lambda x: -1 / x**2, 3e-3)],
    ids=("|x|", "√x", "1/x"),
)  # fmt: skip
@pytest.mark.parametrize("factor", (0.5, 0.999, 1.001, 1.5))
def test_differences_that_disagree_excuse_no_mistake(f, slope, at, factor):
    """Beside a kink or a pole they do, by far more than by roundings."""
    op = op_of(f, lambda dy, x: dy * slope(x) * factor)
    assert not gradcheck(op, np.array([at]))


def test_nothing_compared_is_not_a_pass():
    only_kinks = gradcheck(ops.relu, XP.zeros(3), exact=True)
    assert not only_kinks and not only_kinks.mismatches and only_kinks.kinks
    assert "nothing was compared" in repr(only_kinks)
    nothing_real = op_of(lambda ids: ids * 1.0, lambda dy, ids: None)
    assert not gradcheck(nothing_real, XP.arange(3))
    assert not gradcheck(ops.relu, XP.zeros((0, 3)))


def test_float32_is_refused():
    with pytest.raises(TypeError, match="needs float64, but W is float32"):
        gradcheck(ops.linear, normal(*X), normal(*W).astype("float32"))


def test_exact_mode_refuses_what_it_cannot_add_up_exactly():
    """A right gradient would look wrong by a rounding."""
    with pytest.raises(ValueError, match="multiples of 1/8: draw W with minisum.gradcheck.grid"):
        gradcheck(ops.linear, eighths(*X), normal(*W), exact=True)


@pytest.mark.parametrize("returned", (1.0, (1.0, 2.0), (1.0, abs, abs)), ids=str)
def test_an_op_that_returns_no_pair_with_a_function(returned):
    with pytest.raises(TypeError, match="a tuple of its value and a function"):
        gradcheck(lambda x: returned, normal(*X))


def cube(x):
    return x**3, lambda dy: 3 * x * x * dy


REFUSED = {
    "a list of gradients": (lambda x: (x, lambda dy: [dy]), [0.5], "a list: .* or a tuple of one"),
    "a dict of gradients": (lambda x: (x, lambda dy: {"x": dy}), [0.5], "back returned a dict"),
    "a number for a gradient": (lambda x: (x, lambda dy: 1.0), [0.5], "a float where an array"),
    "complex numbers": (cube, [0.5j], "x is complex: make its real and imaginary part"),
    "a value in float32": (lambda x: (x.astype("f"), cube(x)[1]), [0.5], "not float32"),
    "a value that is a list": (lambda x: ([x], cube(x)[1]), [0.5], "or a tuple of them.*list"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_says_what_to_do_instead(name):
    op, numbers, message = REFUSED[name]
    with pytest.raises(TypeError, match=message):
        gradcheck(op, XP.asarray(numbers))


@pytest.mark.parametrize(
    "argument, message",
    [({"W": 1}, "one by one, but x is a dict"), ([1.0], "but x is a list"),
     (0.5, r"x is a Python float: pass np.array\(0.5\)"), (2j, "x is a Python complex"),
     (np.ma.array([0.5]), r"x is a MaskedArray: pass it as np.asarray\(x\)")],
    ids=str,
)  # fmt: skip
def test_says_what_an_argument_must_be(argument, message):
    with pytest.raises(TypeError, match=message):
        gradcheck(cube, argument)


def test_says_what_to_pass_as_the_op():
    x = normal(3)
    with pytest.raises(TypeError, match="a function and its arguments, not a tuple"):
        gradcheck(cube(x), x)
    for returned in (1.0, (x, x), (1.0, cube)):
        with pytest.raises(TypeError, match="one number, its gradient"):
            gradcheck(from_loss(lambda w, returned=returned: returned), x)


def test_names_the_arguments_of_functions_in_other_styles():
    wrong = from_pair(lambda a, b: a * b, lambda a, b, dy: (dy * b, dy * b))
    text = repr(gradcheck(wrong, normal(3), normal(3, seed=1)))
    assert "b, random direction" in text and "(a (3,), b (3,))" in text


def test_a_note_is_printed_once():
    wrong = op_of(lambda x: XP.sin(3000 * x), lambda dy, x: dy * XP.cos(3000 * x))
    verdict = gradcheck(wrong, normal(3))
    assert len(verdict.mismatches) == 4 and repr(verdict).count("too steep") == 1


def noisy():
    rng = np.random.default_rng(0)

    def op(x):
        keep = XP.asarray(rng.random(x.shape) < 0.5)
        return x * keep, lambda dy: dy * keep

    return op


def only_at(number):
    def op(x):
        if (x != number).any():
            raise IndexError("no such row")
        return 1 * x, lambda dy: dy

    return op


SAID = {
    "nothing to compare: every real argument is empty": (cube, []),
    "no argument is real, and integers are taken for ids": (
        lambda i: (i * 1.0, lambda dy: None), 3),
    "1 places are on kinks": (ops.relu, [0.0]),
    "4 places are on kinks": (ops.relu, np.zeros(3)),
    "roundings hide 3 slopes": (lambda x: (x.sum() + 1e13, lambda dy: dy * XP.ones(2)), [1.0, 2.0]),
    "not deterministic: pass what is drawn at random": (noisy(), np.ones(50)),
    "NaN or infinite in places, but must be finite": (cube, [np.nan]),
    "a kink or a jump is near": (lambda x: (XP.sign(x), lambda dy: 0 * x), [0.0]),
    "numbers as large as x are 16 apart: no step is shorter": (
        lambda x: (XP.sin(x), lambda dy: dy * XP.cos(x)), [1e17]),
    "computes in float32 inside": (
        lambda x: ((x.astype("f") ** 2).astype("d"), lambda dy: 2 * x * dy), [0.3, 0.7]),
    "off by 2e-08 of it, but must be back(dy) (not linear in dy, or computed in float32)": (
        lambda x: (2 * x, lambda dy: (2 * dy).astype("f").astype("d")), [0.3, 0.7]),
    "made for one layout of memory?": (
        lambda x: (1 * x, lambda dy: XP.lib.stride_tricks.as_strided(dy, (2,), (8,))), [0.3, 0.7]),
    "NaN beside it, too: is this the edge of where the op is defined?": (
        lambda x: (XP.where(x == 0.3, x, XP.nan), lambda dy: dy), [0.3]),
    "beside it the op raises IndexError('no such row')": (only_at(0.3), [0.3]),
    "left alone (one buffer for all calls?)": (
        lambda x, dx=XP.zeros(2): (  # noqa: B008
            x**2, lambda dy: XP.multiply(2 * x, dy, out=dx)), [0.3, 0.7]),
    "but must be the gradient": (
        lambda x: (lambda saved: (x**2, lambda dy: dy * saved.pop()))([2 * x]), [0.3, 0.7]),
    "does it read what a later call of the op overwrites?": (
        lambda x, kept={}: (kept.update(x=x), (x**2, lambda dy: 2 * kept["x"] * dy))[1], [0.3]),
}  # fmt: skip


@pytest.mark.parametrize("words", SAID)
def test_says_why(words):
    op, numbers = SAID[words]
    x = XP.arange(numbers) if isinstance(numbers, int) else XP.asarray(numbers)
    verdict = gradcheck(op, x)
    assert not verdict and words in repr(verdict), verdict


def test_row_gradients_are_made_dense():
    def rows(ids, dy):
        return RowGradient(ids, dy, (4, 3))

    ids = XP.asarray([0, 2, 2])
    op = op_of(lambda table, ids: table[ids], lambda dy, table, ids: (rows(ids, dy), None))
    assert gradcheck(op, normal(4, 3), ids) and gradcheck(op, eighths(4, 3), ids, exact=True)
    twice = op_of(lambda table, ids: table[ids], lambda dy, table, ids: (rows(ids, 2 * dy), None))
    assert not gradcheck(twice, normal(4, 3), ids)


def test_functions_in_other_styles():
    power = partial(from_pair, lambda a, b: a * b)
    assert gradcheck(power(lambda a, b, dy: (dy * b, dy * a)), normal(3), normal(3, seed=1))
    assert not gradcheck(power(lambda a, b, dy: (dy * a, dy * b)), normal(3), normal(3, seed=1))
    assert gradcheck(from_loss(lambda w: (float((w * w).sum()), 2 * w)), normal(3))
    assert not gradcheck(from_loss(lambda w: (float((w * w).sum()), w)), normal(3))
    assert gradcheck(from_loss(lambda v, w: ((v * w).sum(), (w, v))), normal(3), normal(3, seed=1))


def test_a_step_of_ones_own():
    """Where the op is defined only near its argument, and says so."""

    def fenced(x):
        if float(abs(x - 0.5).max()) > 1e-3:
            raise ValueError("out of range")
        return x**2, lambda dy: 2 * x * dy

    x = XP.asarray([0.5, 0.5])
    assert gradcheck(fenced, x)
    counts = []

    def counted(x):
        counts.append(x)
        return fenced(x)

    assert gradcheck(counted, x, step=1e-4) and len(counts) < 20


def test_the_package_has_it_as_a_function_and_as_a_module():
    code = """
import sys, minisum
assert "minisum.gradcheck" not in sys.modules
import numpy as np
x = np.array([0.5, 0.25])
assert minisum.gradcheck(lambda x: (x * x, lambda dy: 2 * x * dy), x)
assert not minisum.gradcheck(lambda x: (x * x, lambda dy: x * dy), x, seed=3)
from minisum.gradcheck import gradcheck, grid
from minisum import gradcheck as module
assert module is minisum.gradcheck and module.gradcheck is gradcheck and module.grid is grid
try:
    minisum.gradchek
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "module 'minisum' has no attribute 'gradchek'\n", done.stderr


def test_the_seed_repeats_the_check():
    wrong = op_of(lambda x: x**3, lambda dy, x: dy * x)
    x = normal(*X)
    assert repr(gradcheck(wrong, x, seed=3)) == repr(gradcheck(wrong, x, seed=3))
    assert repr(gradcheck(wrong, x, seed=3)) != repr(gradcheck(wrong, x, seed=4))


def test_constants_are_bound_beforehand():
    verdict = gradcheck(partial(ops.mean_tokens, power=0.5), normal(2, 3, 4))
    assert verdict and "gradcheck of mean_tokens(x (2, 3, 4))" in repr(verdict)


class Tanh:
    def forward(self, x):
        self.y = XP.tanh(x)
        return self.y

    def backward(self, dy):
        return dy * (1 - self.y**2)


def test_the_example_of_the_checker_works():
    lines = [line[4:] for line in gradcheck.__globals__["__doc__"].splitlines()
             if line.startswith("    ")]  # fmt: skip
    names = {
        "my_op": ops.linear, "x": eighths(*X), "W": eighths(*W),
        "f": np.sin, "grad": lambda x, dy: dy * np.cos(x),
        "loss": lambda w, data: (((w - data) ** 2).sum(), 2 * (w - data)),
        "layer": Tanh(), "w": normal(3), "data": normal(3, seed=1),
    }  # fmt: skip
    exec("\n".join(lines), names)


@pytest.mark.parametrize("slope", [0.0, 0.3, 0.5, 1.0])
def test_on_a_kink_no_slope_is_right_or_wrong(slope):
    """Not even the mean of those to both sides, which central differences measure."""

    def relu(x):
        mask = np.where(x > 0, 1.0, np.where(x < 0, 0.0, slope))
        return np.maximum(x, 0), lambda dy: (dy * mask,)

    verdict = gradcheck(relu, np.array([0.0, 1.0, -2.0, 0.5]))
    assert verdict and (verdict.checked, verdict.kinks) == (3, 2)
    assert not gradcheck(relu, np.zeros(3))
