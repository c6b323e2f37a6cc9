"""Is a hand-written gradient right? One call, one verdict.

    from minisum.gradcheck import gradcheck
    assert gradcheck(my_op, x, W)                  # smooth op: central differences in float64
    assert gradcheck(my_op, x, W, exact=True)      # piecewise-linear op: equality, no tolerance

`my_op` follows the protocol of `minisum.ops`: it returns a value and a function `back` that maps
the value's gradient to one gradient per array argument (None for integers and booleans).

The check weighs the outputs with a random cotangent u, so that the op becomes one number
L = Σ u ⊙ y, and compares `back(u)` with how L really changes. Never ones: the rows of a softmax
sum to a constant, and a backward pass that returns zeros would pass with them.

*Exact mode.* Where an op is piecewise linear in each argument taken alone, let the inputs be
multiples of 1/8 and the step 2⁻²⁰. Every sum and product is then exact in float64 as long as
numbers stay moderate, so a central difference equals the derivative to the last bit and `==` is
the test, along a random direction and along single entries. Where the two one-sided slopes disagree
the input sits on a kink: it is skipped, counted and reported.

*Difference mode.* For smooth ops: central differences at two step sizes, extrapolated
(Richardson) to an error of the fourth order, along a random direction and along single entries.
Where they do not fit and a shorter step gives another slope than roundings would, the shorter one
is taken: what it leaves out (the truncation error) is four thousand times less.
"""

import inspect
import math
from dataclasses import dataclass, field

import numpy as np

from minisum.backend import array_module, to_numpy

EXACT_STEP = 2.0**-20
STEP, SHORT_STEP = 1e-3, 1.25e-4
RELATIVE_TOLERANCE = 1e-7
# Roundings that a difference of two values is allowed: exp and log alone are good to one or two on
# a GPU. At a value of 1 this is 4e-12 in the slope.
ROUNDINGS = 16
LINES = 8  # of a verdict that are about single comparisons
OTHER_STEPS = (0.7, 0.5, 0.35, 0.25)  # of STEP, where a difference does not fit


@dataclass(frozen=True)
class Mismatch:
    """One place where the gradient is wrong: all there is to know to look into it."""

    argument: str
    place: str
    analytic: object
    numeric: object

    def __str__(self):
        text = f"{self.argument}, {self.place}: "
        if isinstance(self.numeric, str):  # of the protocol, not of a number
            return text + f"{self.analytic}, but must be {self.numeric}"
        text += f"back gives {self.analytic}, but it is {self.numeric}"
        if isinstance(self.analytic, float) and isinstance(self.numeric, float) and self.numeric:
            text += f" (ratio {self.analytic / self.numeric:.9g})"
        return text


@dataclass
class Verdict:
    """What `gradcheck` found. True when every comparison agreed."""

    op: str
    mode: str
    seed: int
    shapes: dict
    checked: int = 0
    kinks: int = 0
    mismatches: list = field(default_factory=list)

    def __bool__(self):
        return self.checked > 0 and not self.mismatches

    def __repr__(self):
        shapes = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items())
        lines = [
            f"gradcheck of {self.op}({shapes}), {self.mode}, seed {self.seed}: "
            f"{self.checked} compared, {len(self.mismatches)} wrong, {self.kinks} skipped on a kink"
        ]
        if not self.checked and not self.mismatches:
            lines.append(
                "  nothing was compared: all entries sat on kinks (in exact mode those of a smooth "
                "op all do), or no argument is real"
            )
        wrong = {}
        for mismatch in self.mismatches:
            wrong.setdefault(mismatch.argument, []).append(mismatch)
        # So many of each argument that none is crowded out by the one before.
        share = max(1, LINES // max(1, len(wrong)))
        shown = [mismatch for found in wrong.values() for mismatch in found[:share]]
        lines += [f"  {mismatch}" for mismatch in shown]
        if len(self.mismatches) > len(shown):
            lines.append(f"  and {len(self.mismatches) - len(shown)} more")
        return "\n".join(lines)


def gradcheck(op, *arguments, exact=False, seed=0, entries=12, tolerance=RELATIVE_TOLERANCE):
    """Compare the gradient of `op` at `arguments` with differences of its value.

    op: callable in the protocol of `minisum.ops`; it may return several arrays (a tuple), whose
    cotangents `back` then takes as a tuple. Plain numbers and flags are bound beforehand
    (`functools.partial`, a lambda). arguments: float64 arrays (of either backend) to
    differentiate, and integer or boolean ones, or None, to pass along. exact: see the module's
    text; draw the arrays with `grid`. entries: how many single entries of each argument to look
    at (all, if it has no more). tolerance: relative, in difference mode.

    Returns a Verdict, which is true if all is well and prints what is not. Raises TypeError if a
    float argument is not float64 or the op returns no pair with a function, ValueError if in exact
    mode an argument is no multiple of 1/8.
    """
    names = _argument_names(op, len(arguments))
    for name, argument in zip(names, arguments, strict=True):
        if _is_real(argument) and argument.dtype != np.float64:
            raise TypeError(f"gradcheck needs float64, but {name} is {argument.dtype}")
        if exact and _is_real(argument) and not _on_grid(to_numpy(argument)):
            raise ValueError(f"exact mode needs multiples of 1/8: draw {name} with gradcheck.grid")
    mode = "exact (==)" if exact else f"differences (relative {tolerance:g})"
    shapes = {n: getattr(a, "shape", a) for n, a in zip(names, arguments, strict=True)}
    verdict = Verdict(getattr(op, "__name__", type(op).__name__), mode, seed, shapes)
    rng = np.random.default_rng(seed)

    before = [_copy(a) for a in arguments]
    returned = op(*arguments)
    if not (isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1])):
        raise TypeError(f"{verdict.op} must return its value and a function, not {type(returned)}")
    y, back = returned
    u = _map_outputs(lambda out: _cotangent(rng, out, exact), y)
    gradients = _as_tuple(back(_map_outputs(_copy, u)), arguments)
    _check_protocol(verdict, names, arguments, before, u, gradients, back)
    if verdict.mismatches:
        return verdict

    check = _check_exact if exact else _check_differences
    for position, (name, argument) in enumerate(zip(names, arguments, strict=True)):
        if not _is_real(argument):
            continue

        def value(changed, position=position):
            """L's terms at `changed`, before they are added up."""
            outputs, _ = op(*arguments[:position], changed, *arguments[position + 1 :])
            return _terms(u, outputs)

        gradient = to_numpy(gradients[position])
        check(verdict, name, value, argument, gradient, rng, entries, tolerance)
    return verdict


def loss_op(model, params, batch):
    """A model's loss as an op of its flat vector of parameters: gradcheck(loss_op(...), vector).

    model: see minisum.models; params: Params in float64; batch: of the same backend.
    """

    def loss(vector):
        at = params.zeros_like()
        at.vector[...] = vector
        value, back = model.loss(at, batch, model.count_targets(batch))

        def backward(dloss):
            grads = params.zeros_like()
            back(grads)
            return grads.vector * dloss

        return value, backward

    return loss


def _check_exact(verdict, name, value, argument, gradient, rng, entries, _):
    host = to_numpy(argument)
    middle = value(argument)
    for place, direction in _directions(rng, host.shape, entries, exact=True):
        step = EXACT_STEP * direction
        up, down = (value(_along(argument, host, change)) for change in (step, -step))
        if not np.array_equal(up - middle, middle - down):
            verdict.kinks += 1
            continue
        numeric = float((up - down).sum() / (2 * EXACT_STEP))
        analytic = float((gradient * direction).sum())
        verdict.checked += 1
        if analytic != numeric:
            verdict.mismatches.append(Mismatch(name, place, analytic, numeric))


def _check_differences(verdict, name, value, argument, gradient, rng, entries, tolerance):
    host = to_numpy(argument)
    middle = np.abs(value(argument)).sum()

    for place, direction in _directions(rng, host.shape, entries, exact=False):

        def along(step, direction=direction):
            return value(_along(argument, host, step * direction))

        analytic = float((gradient * direction).sum())
        verdict.checked += 1
        numeric, excess = _misfit(along, analytic, middle, tolerance)
        if not excess <= 0:
            verdict.mismatches.append(Mismatch(name, place, analytic, numeric))


def _misfit(along, analytic, middle, tolerance):
    """The slope of L by differences, and how much further off the gradient is than it may be."""

    def compare(step):
        slope, size = _slope(along, step)
        noise = _noise(step) * max(size, middle)
        allowed = tolerance * max(abs(analytic), abs(slope)) + noise
        return slope, noise, abs(analytic - slope) - allowed

    at_step, _, excess = compare(STEP)
    if excess <= 0:
        return at_step, excess
    slope = at_step
    at_short_step, noise, short_excess = compare(SHORT_STEP)
    if abs(at_short_step - at_step) > noise and short_excess < excess:
        slope, excess = at_short_step, short_excess
    if excess <= 0:
        return slope, excess
    # A small L may be what is left of numbers near 1, as the loss of a sure answer is, and then its
    # roundings are theirs: as large as slopes at other steps differ, but no larger than that. (At a
    # kink they differ by more, and that excuses nothing.)
    slopes = [at_step, *(_slope(along, share * STEP)[0] for share in OTHER_STEPS)]
    return slope, excess - min(2 * (max(slopes) - min(slopes)), _noise(STEP) / 2)


def _noise(step):
    """What roundings may do to a slope where L's terms are 1 in all."""
    return ROUNDINGS * np.finfo(float).eps / (step / 2)


def _slope(along, first_step):
    """The extrapolated slope of L, along(step) being its terms, and how large they are in all."""
    slopes = []
    for step in (first_step, first_step / 2):
        up, down = along(step), along(-step)
        slopes.append(float((up - down).sum() / (2 * step)))
    coarse, fine = slopes
    return (4 * fine - coarse) / 3, np.abs(up).sum()


def _directions(rng, shape, entries, exact):
    """(name, array) of what to move along: all entries at once, then single ones.

    No component of the random direction is near zero, or it would hardly test that entry; in exact
    mode all are 1 or -1.
    """
    if math.prod(shape) > 1:
        signs = rng.choice([-1.0, 1.0], shape)
        sizes = 1.0 if exact else rng.uniform(0.5, 1.0, shape) / math.sqrt(math.prod(shape))
        yield "random direction", signs * sizes
    for index in _some_entries(rng, shape, entries):
        direction = np.zeros(shape)
        direction[index] = 1.0
        yield f"entry {index}", direction


def _check_protocol(verdict, names, arguments, before, u, gradients, back):
    """Everything that can be wrong with a backward pass without comparing a number."""

    def wrong(argument, place, found, expected):
        verdict.mismatches.append(Mismatch(argument, place, found, expected))

    if len(gradients) != len(arguments):
        wrong("back", "number of gradients", str(len(gradients)), str(len(arguments)))
        return
    given = _map_outputs(_copy, u)
    again = _as_tuple(back(given), arguments)
    if not np.array_equal(_flat(given), _flat(u)):
        wrong("back", "value of its argument afterwards", "changed", "left alone")
    for name, argument, old, g, g2 in zip(names, arguments, before, gradients, again, strict=True):
        if not _is_real(argument):
            if g is not None:
                wrong(name, "gradient of an argument that has none", "an array", "None")
        elif g is None:
            wrong(name, "gradient", "None", "an array")
        elif g.shape != argument.shape:
            wrong(name, "shape of the gradient", str(g.shape), str(argument.shape))
        elif g.dtype != argument.dtype:
            wrong(name, "type of the gradient", str(g.dtype), str(argument.dtype))
        elif not _same(g, g2):
            wrong(name, "gradient of a second call of back", "another array", "the same one")
        if hasattr(argument, "dtype") and not np.array_equal(
            to_numpy(argument), to_numpy(old), equal_nan=argument.dtype.kind == "f"
        ):
            wrong(name, "value of the argument afterwards", "changed", "left alone")


def _same(g, again):
    """Equal to the bit; on a GPU, where atomic additions come in any order, to a few roundings."""
    host, host_again = to_numpy(g), to_numpy(again)
    if array_module(g) is np:
        return np.array_equal(host, host_again, equal_nan=True)
    size = np.abs(host).max(initial=0.0, where=np.isfinite(host))
    room = ROUNDINGS * np.finfo(float).eps * size
    return np.allclose(host, host_again, rtol=0, atol=room, equal_nan=True)


def grid(rng, shape, low=-1.0, high=1.0):
    """Random float64 multiples of 1/8 in [low, high]: inputs for the exact mode."""
    return rng.integers(round(low * 8), round(high * 8), shape, endpoint=True) / 8


def _on_grid(array):
    """Whether exact mode can add these up without rounding; infinities and NaN are let through."""
    finite = array[np.isfinite(array)]
    return bool(np.all(finite * 8 == np.round(finite * 8)))


def _cotangent(rng, output, exact):
    """Random weights for an output; multiples of 1/8 without zero in exact mode."""
    shape = np.shape(output)
    if exact:
        u = rng.integers(1, 8, shape, endpoint=True) * rng.choice([-1, 1], shape) / 8
    else:
        u = rng.uniform(0.25, 1.0, shape) * rng.choice([-1.0, 1.0], shape)
    return array_module(output).asarray(u)


def _map_outputs(f, y):
    return tuple(f(part) for part in y) if isinstance(y, tuple) else f(y)


def _terms(u, y):
    """The terms of L = Σ u ⊙ y, flat, on the host."""
    if not isinstance(y, tuple):
        u, y = (u,), (y,)
    return _flat(tuple(w * part for w, part in zip(u, y, strict=True)))


def _flat(outputs):
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    return np.concatenate([to_numpy(part).reshape(-1) for part in parts])


def _as_tuple(gradients, arguments):
    """One gradient per argument given: a bare one wrapped, those of arguments left out dropped."""
    if not isinstance(gradients, tuple):
        gradients = (gradients,)
    gradients = tuple(g.dense() if hasattr(g, "dense") else g for g in gradients)
    surplus = gradients[len(arguments) :]
    return gradients[: len(arguments)] if all(g is None for g in surplus) else gradients


def _is_real(argument):
    return hasattr(argument, "dtype") and argument.dtype.kind == "f"


def _copy(argument):
    return argument.copy() if hasattr(argument, "dtype") else argument


def _some_entries(rng, shape, entries):
    size = math.prod(shape)
    chosen = range(size) if size <= entries else rng.choice(size, entries, replace=False)
    return [tuple(int(i) for i in np.unravel_index(c, shape)) for c in chosen]


def _along(argument, host, change):
    return array_module(argument).asarray(host + change)


def _argument_names(op, count):
    """The op's own parameter names where they can be had."""
    code = getattr(inspect.unwrap(op), "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code else ()
    return [names[i] if i < len(names) else f"argument {i}" for i in range(count)]
