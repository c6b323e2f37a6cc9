"""Is a hand-written gradient right? One call, one verdict.

    from minisum.gradcheck import gradcheck
    assert gradcheck(my_op, x, W)                  # smooth op: differences in float64
    assert gradcheck(my_op, x, W, exact=True)      # piecewise-linear op: equality, no tolerance

`my_op` follows the protocol of `minisum.ops`: it returns a value and a function `back` that maps
the value's gradient to one gradient per array argument (None for integers and booleans). Other
styles need one more line. A function and a separate gradient, y = f(x) and dx = grad(x, dy):

    from minisum.gradcheck import from_pair
    assert gradcheck(from_pair(f, grad), x)

A loss that returns its value and its gradient, as for scipy.optimize:

    from minisum.gradcheck import from_loss
    assert gradcheck(from_loss(lambda w: loss(w, data)), w)

A layer that keeps its last input for `backward`:

    def grad(x, dy):
        layer.forward(x)
        return layer.backward(dy)
    assert gradcheck(from_pair(layer.forward, grad), x)

The check weighs the outputs with a random cotangent u, so that the op becomes one number
L = Σ u ⊙ y, and compares `back(u)` with how L really changes, along a random direction and along
single entries. u is never all ones: the rows of a softmax sum to a constant, so a backward pass
that returns zeros would pass. Before that, minisum/protocol.py checks what needs no slope: that a
second call gives the same, that `back` is linear, that no argument is written to.

*Exact mode.* For an op that is piecewise linear in each argument: the inputs are multiples of 1/8
and the step is 2⁻²⁰. Every sum and product is then exact in float64 as long as numbers stay
moderate, so a central difference equals the derivative to the last bit, and `==` is the test.

*Difference mode.* For smooth ops: central differences at two step sizes, extrapolated (Richardson)
to an error of the fourth order. Where they disagree, no single step is trusted: differences at ever
shorter steps are extrapolated, and the one with the least estimate of its own error decides
(Ridders). A step is relative to an entry's size, or to 1 if that is larger; one at which the op
raises or gives NaN is left out.

Entries on a kink, where the slopes to both sides differ, and those whose slope is lost in the
rounding errors of L are skipped, counted and reported. If nothing else is left of an argument, the
verdict is false: it was not checked.
"""

import inspect
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from types import ModuleType
from typing import Any

import numpy as np

from minisum import protocol
from minisum.backend import array_module, to_numpy
from minisum.differences import FAINT, extrapolate, noise, prober
from minisum.protocol import is_real

EXACT_STEP = 2.0**-20
STEP = 1e-3
RELATIVE_TOLERANCE = 1e-9  # so that float32, good to 6e-8, is noticed
LINES = 8  # of a verdict that are about single comparisons


@dataclass(frozen=True)
class Mismatch:
    """One place where the gradient is wrong, with all that is needed to look into it."""

    argument: str
    place: str
    analytic: object
    numeric: object
    note: str = ""

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
    """What `gradcheck` found. True when every argument was compared and every comparison agreed."""

    op: str
    mode: str
    seed: int
    shapes: dict[str, Any]
    checked: int = 0
    kinks: int = 0
    hidden: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)  # why nothing of an argument was compared

    def __bool__(self) -> bool:
        return self.checked > 0 and not self.mismatches and not self.unchecked

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items())
        lines = [
            f"gradcheck of {self.op}({shapes}), {self.mode}, seed {self.seed}: "
            f"{self.checked} compared, {len(self.mismatches)} wrong, {self.kinks} skipped on a kink"
        ]
        if self.hidden:
            lines[0] += f", {self.hidden} hidden by roundings"
        wrong = {}
        for mismatch in self.mismatches:
            wrong.setdefault(mismatch.argument, []).append(mismatch)
        # So many of each argument that none is crowded out by the one before.
        share = max(1, LINES // max(1, len(wrong)))
        shown = [mismatch for found in wrong.values() for mismatch in found[:share]]
        said = set()
        for mismatch in shown:  # with each note once
            lines.append(f"  {mismatch}" + ("" if mismatch.note in said else mismatch.note))
            said.add(mismatch.note)
        lines += [f"  {why}" for why in self.unchecked]
        if len(self.mismatches) > len(shown):
            lines.append(f"  and {len(self.mismatches) - len(shown)} more")
        return "\n".join(lines)

    def breach(self, argument, place, found, expected, note=""):
        self.mismatches.append(Mismatch(argument, place, found, expected, note))


def gradcheck(
    op: Callable[..., Any],
    *arguments: Any,
    exact: bool = False,
    seed: int = 0,
    entries: int = 12,
    tolerance: float = RELATIVE_TOLERANCE,
    step: float = STEP,
) -> Verdict:
    """Compare the gradient of `op` at `arguments` with differences of its value.

    op: callable in the protocol of `minisum.ops`; it may return several arrays (a tuple), whose
    cotangents `back` then takes as a tuple. Plain numbers and flags are bound beforehand
    (`functools.partial`, a lambda). arguments: float64 arrays (of either backend) to
    differentiate, and integer or boolean ones, or None, to pass along. exact: see the module's
    docstring; draw the arrays with `grid`. entries: how many single entries of each argument to
    check (at most all): two to four calls of the op for each, fifty where it is steep. In
    difference mode, tolerance: relative, step: the one to try first, relative to an entry or to 1.

    Returns a Verdict, which is true if all is well and prints what is not. Raises TypeError if an
    argument, a value or a gradient does not follow the protocol, ValueError if an argument is no
    multiple of 1/8 in exact mode.
    """
    if not callable(op):
        kind = type(op).__name__
        raise TypeError(f"gradcheck(op, x) takes a function and its arguments, not a {kind}")
    names = _argument_names(op, len(arguments))
    for name, argument in zip(names, arguments, strict=True):
        protocol.refuse_argument(name, argument)
        if exact and is_real(argument) and not _on_grid(to_numpy(argument)):
            raise ValueError(
                f"exact mode needs multiples of 1/8: draw {name} with minisum.gradcheck.grid"
            )
    mode = "exact (==)" if exact else f"differences (relative {tolerance:g})"
    shapes = {n: getattr(a, "shape", a) for n, a in zip(names, arguments, strict=True)}
    verdict = Verdict(
        getattr(getattr(op, "func", op), "__name__", type(op).__name__), mode, seed, shapes
    )
    if not any(map(is_real, arguments)):
        verdict.unchecked.append(
            "nothing was compared: no argument is real, and integers are taken for ids "
            "(x.astype(float) is differentiated)"
        )
        return verdict
    rng = np.random.default_rng(seed)

    before = [protocol.copy(a) for a in arguments]
    y, back = protocol.forward(verdict.op, op, arguments)
    first, others = protocol.flat(y), [back]
    u = protocol.map_outputs(lambda out: _cotangent(rng, out, exact), y)
    gradients = _check_protocol(verdict, names, arguments, op, y, back, u)
    for name, argument, old in zip(names, arguments, before, strict=True):
        if hasattr(argument, "dtype") and not protocol.same(to_numpy(argument), to_numpy(old)):
            verdict.breach(name, "value of the argument afterwards", "changed", "left alone")
    if verdict.mismatches:
        return verdict

    middle = _terms(u, y)
    for position, (name, argument) in enumerate(zip(names, arguments, strict=True)):
        if not is_real(argument):
            continue

        def value(changed, position=position, argument=argument):
            """L's terms where one argument is another host array, before they are added up."""
            changed = array_module(argument).asarray(changed)
            with np.errstate(all="ignore"):  # a long step may leave where the op is defined
                outputs, others[0] = op(*arguments[:position], changed, *arguments[position + 1 :])
                return _terms(u, outputs)

        line = (verdict, name, value, middle, to_numpy(argument), to_numpy(gradients[position]))
        counts = verdict.checked, verdict.kinks, verdict.hidden
        if exact:
            _check_exact(*line, rng, entries)
        else:
            _check_differences(*line, rng, entries, tolerance, step)
        if verdict.checked == counts[0] and argument.size:
            kinks, hidden = verdict.kinks - counts[1], verdict.hidden - counts[2]
            verdict.unchecked.append(_why_unchecked(name, kinks, hidden, exact))
    if not any(argument.size for argument in arguments if is_real(argument)):
        verdict.unchecked.append("nothing to compare: every real argument is empty")
    _check_later(verdict, y, first, back, others[0], u, gradients)
    return verdict


def _check_protocol(verdict, names, arguments, op, y, back, u):
    """The gradients, copied; whatever breaks the protocol is recorded in the verdict."""
    gradients = protocol.gradients_of(back(protocol.map_outputs(protocol.copy, u)), len(arguments))
    if not np.isfinite(protocol.flat(y)).all():
        verdict.breach("the op", "value", "NaN or infinite in places", "finite")
    protocol.check_gradients(verdict.breach, names, arguments, gradients)
    if verdict.mismatches:
        return gradients
    given = protocol.map_outputs(protocol.copy, u)
    gradients_again = protocol.call_again(
        verdict.breach, "second call", back, given, len(arguments)
    )
    if gradients_again is None:
        return gradients
    if not np.array_equal(protocol.flat(given), protocol.flat(u)):
        verdict.breach("back", "value of its argument afterwards", "changed", "left alone")
    again, _ = protocol.forward(verdict.op, op, arguments)
    protocol.check_repeats(verdict.breach, names, y, again, gradients, gradients_again)
    if not verdict.mismatches:
        pairs = zip(arguments, gradients, strict=True)
        largest = [protocol.size(a) * protocol.size(g) for a, g in pairs if g is not None]
        largest = max([*largest, protocol.size(_terms(u, y))])
        rng = np.random.default_rng(verdict.seed)
        protocol.check_linear(verdict.breach, names, back, u, gradients, largest, rng)
    return gradients


def _check_later(verdict, y, first, back, other_back, u, gradients):
    """After other calls `back` gives the same, and what was returned before them is left alone."""
    found = back(protocol.map_outputs(protocol.copy, u))
    last = protocol.gradients_of(found, len(gradients))
    if not all(map(protocol.same, gradients, last)):
        note = (
            " (does it read what a later call of the op overwrites? Of a layer that keeps its last"
            " input, see help(minisum.gradcheck))"
        )
        verdict.breach("back", "gradients after other calls of the op", "others", "the same", note)
    note = " (one buffer for all calls?)"
    if not protocol.same(protocol.flat(y), first):
        verdict.breach("the op", "value after other calls", "overwritten", "left alone", note)
    with np.errstate(all="ignore"), suppress(Exception):  # that of a place beside the arguments
        other_back(protocol.map_outputs(lambda w: -w, u))
    if not all(map(protocol.same, last, protocol.gradients_of(found, len(gradients)))):
        place = "gradients after other calls of back"
        verdict.breach("back", place, "overwritten", "left alone", note)


def _why_unchecked(name, kinks, hidden, exact):
    advice = "as all are of a smooth op in exact mode" if exact else "move it off them"
    kinky = f"{kinks} places are on kinks ({advice})"
    faint = f"roundings hide {hidden} slopes (is the value very large beside them?)"
    why = " and ".join(text for text, count in ((kinky, kinks), (faint, hidden)) if count)
    return f"nothing was compared of {name}: {why}"


# ---- Functions in other styles


def from_pair(f: Callable[..., Any], grad: Callable[..., Any]) -> Callable[..., Any]:
    """An op from y = f(*arrays) and grad(*arrays, dy), which returns one gradient per array."""

    @wraps(f)
    def op(*arrays):
        return f(*arrays), lambda dy: grad(*arrays, dy)

    return op


def from_loss(loss: Callable[..., Any]) -> Callable[..., Any]:
    """An op from loss(*arrays) -> (value, gradient): a tuple of gradients if of several arrays."""

    @wraps(loss)
    def op(*arrays):
        pair = loss(*arrays)
        if (
            not (isinstance(pair, tuple) and len(pair) == 2)
            or np.ndim(pair[0])
            or callable(pair[1])
        ):
            raise TypeError("from_loss takes a function that returns (one number, its gradient)")
        value, found = pair
        found = found if isinstance(found, tuple) else (found,)
        return value, lambda dvalue: tuple(float(dvalue) * gradient for gradient in found)

    return op


def loss_op(model: Any, params: Any, batch: dict[str, Any]) -> Callable[..., Any]:
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


# ---- Slopes


def _check_exact(verdict, name, value, middle, host, gradient, rng, entries):
    for place, direction in _directions(rng, host.shape, entries, exact=True):
        step = EXACT_STEP * direction
        up, down = value(host + step), value(host - step)
        if not np.array_equal(up - middle, middle - down):
            verdict.kinks += 1
            continue
        numeric = float((up - down).sum() / (2 * EXACT_STEP))
        analytic = float((gradient * direction).sum())
        verdict.checked += 1
        if analytic != numeric:
            verdict.mismatches.append(Mismatch(name, place, analytic, numeric))


def _check_differences(
    verdict, name, value, middle, host, gradient, rng, entries, tolerance, first_step
):
    scale = np.where(np.isfinite(host), np.maximum(1.0, np.abs(host)), 0.0)
    sizes = protocol.size(gradient * scale), protocol.size(scale)
    for place, direction in _directions(rng, host.shape, entries, exact=False):
        raised = []
        probe = prober(value, middle, host, scale * direction, gradient, raised)
        analytic = float((gradient * scale * direction).sum())

        def fits(slope, error, analytic=analytic):
            return abs(analytic - slope) <= tolerance * max(abs(analytic), abs(slope)) + error

        (coarse, wide, _), (fine, narrow, size) = probe(first_step), probe(first_step / 2)
        slope, error, note = (4 * fine - coarse) / 3, noise(first_step / 2) * size, ""
        # The slopes to both sides differ as before after half the step: their mean is no slope.
        if narrow > 0.99 * wide and narrow > max(100 * error, 1e-3 * abs(slope)):
            _, _, kink, _ = extrapolate(probe, first_step, *sizes)
            if kink:
                verdict.kinks += 1
                continue
        # Most often that is all. Where they do not fit, or roundings may hide a mistake: any step.
        if not (error <= FAINT * max(1.0, abs(slope)) and fits(slope, error)):
            slope, error, kink, note = extrapolate(probe, first_step, *sizes)
            if fits(slope, error) and error > max(FAINT, 1e-3 * abs(slope)):
                verdict.hidden += 1  # anything would fit
                continue
            # A kink explains slopes between those of its sides; 100: several may nearly cancel.
            if abs(analytic - slope) < 100 * kink and not fits(slope, error):
                verdict.kinks += 1
                continue
        verdict.checked += 1
        if not fits(slope, error):
            if math.isnan(slope) and raised:
                note = f" (beside it the op raises {raised[-1]!r})"
            apart = np.spacing(np.abs(host[direction != 0])).max()
            if apart > STEP:
                note += f" (numbers as large as {name} are {apart:.2g} apart: no step is shorter)"
            verdict.mismatches.append(Mismatch(name, place, analytic, slope, note))


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


def _some_entries(rng, shape, entries):
    size = math.prod(shape)
    chosen = range(size) if size <= entries else rng.choice(size, entries, replace=False)
    return [tuple(int(i) for i in np.unravel_index(c, shape)) for c in chosen]


# ---- Arrays


def grid(
    rng: "np.random.Generator", shape: tuple[int, ...], low: float = -1.0, high: float = 1.0
) -> np.ndarray:
    """Random float64 multiples of 1/8 in [low, high]: inputs for the exact mode."""
    return rng.integers(round(low * 8), round(high * 8), shape, endpoint=True) / 8


def _on_grid(array):
    """Whether exact mode can add these up without rounding; infinities and NaN are let through."""
    finite = array[np.isfinite(array)]
    return bool(np.all(finite * 8 == np.round(finite * 8)))


def _cotangent(rng, output, exact):
    """Random weights for an output; multiples of 1/8 without zero in exact mode."""
    shape = getattr(output, "shape", ())
    if exact:
        u = rng.integers(1, 8, shape, endpoint=True) * rng.choice([-1, 1], shape) / 8
    else:
        u = rng.uniform(0.25, 1.0, shape) * rng.choice([-1.0, 1.0], shape)
    return array_module(output).asarray(u)


def _terms(u, y):
    """The terms of L = Σ u ⊙ y, flat, on the host; ValueError if there are others than of u."""
    weights = protocol.flat(u)
    return weights * protocol.flat(y).reshape(weights.shape)


def _argument_names(op, count):
    """The op's own parameter names where they can be had."""
    try:
        parameters = inspect.signature(op).parameters.values()
    except ValueError:  # of some that are not written in Python
        parameters = ()
    names = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    return [names[i] if i < len(names) else f"argument {i}" for i in range(count)]


class _Callable(ModuleType):
    """So that minisum.gradcheck(f, x) is the function, and minisum.gradcheck.grid still this."""

    def __call__(self, *arguments, **options):
        return gradcheck(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
