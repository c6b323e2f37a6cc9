"""The protocol of `minisum.ops`, checked without comparing a slope.

    y, back = op(x, W, ...)        # float64 arrays, and ids, masks or None
    dx, dW, ... = back(dy)         # one gradient per argument, None for ids and masks

The same arguments give the same value. `back` is a linear function of dy, whatever the layout of
dy's memory, and gives the same at every call. Neither writes to what it is given. y, and then dy,
may be a tuple of arrays. gradcheck asks all of this before it compares numbers.
"""

import math

import numpy as np

from minisum.backend import array_module, to_numpy

# Roundings that two ways to the same number may differ by: exp and log alone are good to one or two
# on a GPU.
ROUNDINGS = 16


def refuse_argument(name, argument):
    """Raise TypeError, with what to do instead, if no gradient of this can be checked."""
    kind = type(argument).__name__
    if isinstance(argument, (dict, list, tuple)):
        raise TypeError(
            f"gradcheck takes arrays one by one, but {name} is a {kind}: give it a function "
            "of its arrays, as in gradcheck(lambda a, b: op({'a': a, 'b': b}), a, b)"
        )
    if isinstance(argument, (float, complex)) and not hasattr(argument, "dtype"):
        raise TypeError(
            f"{name} is a Python {kind}: pass np.array({argument}) to check its gradient, or bind "
            "it (functools.partial) if it has none"
        )
    if not hasattr(argument, "dtype"):
        return
    of_numpy = isinstance(argument, np.generic) or type(argument) is np.ndarray
    if array_module(argument) is np and not of_numpy:  # a tensor, a matrix, a masked array
        raise TypeError(f"{name} is a {kind}: pass it as np.asarray({name})")
    if argument.dtype.kind == "c":
        raise TypeError(f"{name} is complex: make its real and imaginary part two arguments")
    if is_real(argument) and argument.dtype != np.float64:
        raise TypeError(
            f"gradcheck needs float64, but {name} is {argument.dtype}: {name}.astype('float64')"
        )


def forward(name, op, arguments):
    """The op's value and its `back`; TypeError if they are not."""
    returned = op(*arguments)
    if not (isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1])):
        pair = returned if isinstance(returned, tuple) else (returned,)
        kinds = " and ".join(type(part).__name__ for part in pair)
        raise TypeError(
            f"{name} must return a tuple of its value and a function, not {kinds} "
            "(for functions in other styles, see help(minisum.gradcheck))"
        )
    for part in parts(returned[0]):
        kind = getattr(part, "dtype", type(part).__name__)
        if kind not in (np.float64, "float"):
            raise TypeError(f"{name} must return float64 arrays (or a tuple of them), not {kind}")
    return returned


def gradients_of(found, count):
    """Copies of what `back` returned for `count` arguments; TypeError if they are no arrays.

    A bare gradient is wrapped, those of arguments left out are dropped, and row gradients (of an
    embedding's table, with a method `dense`) made dense.
    """
    if isinstance(found, (list, dict)):
        raise TypeError(
            f"back returned a {type(found).__name__}: it must return one gradient, or a tuple of "
            "one per argument"
        )
    found = parts(found)
    if all(gradient is None for gradient in found[count:]):
        found = found[:count]
    found = [gradient.dense() if hasattr(gradient, "dense") else gradient for gradient in found]
    for gradient in found:
        if gradient is not None and not hasattr(gradient, "dtype"):
            raise TypeError(f"back returned a {type(gradient).__name__} where an array must be")
    return [copy(gradient) for gradient in found]


def check_gradients(breach, names, arguments, gradients):
    """Check: one gradient per argument, of its shape and type, and finite."""
    if len(gradients) != len(arguments):
        breach("back", "number of gradients", str(len(gradients)), str(len(arguments)))
        return
    for name, argument, g in zip(names, arguments, gradients, strict=True):
        if not is_real(argument):
            if g is not None:
                note = " (integers are taken for ids: x.astype(float) is differentiated)"
                breach(name, "gradient of an argument that has none", "an array", "None", note)
        elif g is None:
            breach(name, "gradient", "None", "an array")
        elif g.shape != argument.shape:
            breach(name, "shape of the gradient", str(g.shape), str(argument.shape))
        elif g.dtype != argument.dtype:
            breach(name, "type of the gradient", str(g.dtype), str(argument.dtype))
        elif not np.isfinite(to_numpy(g)).all():
            breach(name, "gradient", "NaN or infinite in places", "finite")


def check_repeats(breach, names, y, again, gradients, gradients_again):
    """Check: a second call of the op, and of back, gives the same as the first."""
    if not all(map(same, parts(y), parts(again))):
        note = " (not deterministic: pass what is drawn at random or kept from call to call)"
        breach("the op", "value of a second call", "another", "the same", note)
    for name, g, g2 in zip(names, gradients, gradients_again, strict=True):
        if not same(g, g2):
            breach(name, "gradient of a second call of back", "another array", "the same one")


def call_again(breach, what, back, dy, count):
    """The gradients of another call of back; None, and a breach, if it raises."""
    try:
        return gradients_of(back(dy), count)
    except Exception as error:  # whatever it is, it is not the gradient
        breach("back", what, repr(error), "the gradient")


def check_linear(breach, names, back, u, gradients, largest, rng):
    """Check: u in other memory layouts gives the same gradients, and its parts add up to them.

    One part is large and one small, so that clipped or dropped terms show. largest: the largest of
    the terms that gradients are sums of, which determines their rounding error.
    """
    room = 1e4 * np.finfo(float).eps * largest

    def compare(place, found, expected, note):
        for name, g, other in zip(names, gradients, found, strict=True):
            off = 0.0 if g is None else size(to_numpy(other) - to_numpy(g))
            if not off <= 1e-10 * size(g) + room:
                share = off / max(size(g), room)
                breach(name, place, f"another array, off by {share:.1g} of it", expected, note)

    for layout in (fortran, with_gaps):
        place = f"gradient for a dy in {layout.__doc__}"
        found = call_again(breach, place, back, map_outputs(layout, u), len(names))
        if found:
            compare(place, found, "the same", " (made for one layout of memory?)")
    share = map_outputs(lambda w: array_module(w).asarray(rng.choice([0.25, 0.75], w.shape)), u)
    rest = map_outputs(lambda s: 1 - s, share)
    total = [0.0] * len(names)
    for scale, part in ((-(2.0**20), share), (-(2.0**-20), rest)):
        dy = map_outputs(lambda w, s, scale=scale: scale * s * w, u, part)
        with np.errstate(over="ignore"):
            place = f"gradient for {scale:.1g} times a part of dy"
            found = call_again(breach, place, back, dy, len(names))
        if not found:
            return
        total = [
            t if g is None else t + to_numpy(g) / scale for t, g in zip(total, found, strict=True)
        ]
    note = " (not linear in dy, or computed in float32)"
    compare("sum of back of two parts of dy", total, "back(dy)", note)


def fortran(array):
    """Fortran's order"""
    return array_module(array).asfortranarray(array) if array.ndim else array


def with_gaps(array):
    """every other place of memory"""
    if not array.ndim:
        return array
    wide = array_module(array).full((*array.shape[:-1], 2 * array.shape[-1]), math.nan)
    wide[..., ::2] = array
    return wide[..., ::2]


def parts(y):
    return y if isinstance(y, tuple) else (y,)


def map_outputs(f, y, *others):
    return tuple(map(f, y, *others)) if isinstance(y, tuple) else f(y, *others)


def flat(y):
    """All of an op's outputs in one vector on the host."""
    return np.concatenate([to_numpy(part).reshape(-1) for part in parts(y)])


def size(array):
    """The largest number in it, infinities aside; NaN if there is one. 0 of None."""
    if array is None:
        return 0.0
    array = np.abs(to_numpy(array))
    return float(array.max(initial=0.0, where=~np.isinf(array)))


def same(g, again):
    """Equal to the bit; on a GPU, where atomic additions vary in order, to a few roundings."""
    if g is None or again is None:
        return g is again
    host, host_again = to_numpy(g), to_numpy(again)
    if array_module(g) is np:
        return np.array_equal(host, host_again, equal_nan=True)
    room = ROUNDINGS * np.finfo(float).eps * np.abs(host).max(initial=0.0, where=np.isfinite(host))
    return np.allclose(host, host_again, rtol=0, atol=room, equal_nan=True)


def is_real(argument):
    return hasattr(argument, "dtype") and argument.dtype.kind == "f"


def copy(argument):
    return argument.copy() if hasattr(argument, "dtype") else argument
