"""All parameters of a model in one contiguous vector, with a named view for each array.

Gradients and both of Adam's moments mirror the vector. Zeroing, clipping, Adam, the sum over
processes and the checkpoint are then one line each, and on a GPU one kernel launch each.

The views are nested dicts, params["blocks"]["0"]["mixer"]["q"]["W"], so that each layer gets its
own; in checkpoints that array is called "blocks.0.mixer.q.W".
"""

import math
from typing import Any

import numpy as np

from minisum.backend import to_numpy

# Views start at multiples of 64 bytes (in float32), where vector units and cuBLAS are fastest.
ALIGNMENT = 16


class Views(dict):
    """A nested dict of views, in which `views[name] = x` and `views[name] += x` write to the view.

    Neither replaces the view by another array.
    """

    def __setitem__(self, name, value):
        if value is not self[name]:
            self[name][...] = value


class Params(Views):
    """Nested dicts of arrays that are views into `vector`; `flat` has the same by dotted names.

    `params["head"]["W"] += g` and `params.vector *= 2` both see the same memory. The few numbers
    between views (alignment) are zero and stay zero.
    """

    def __init__(self, shapes: dict[str, Any], xp: Any = np, dtype: Any = np.float32):
        """shapes: name -> shape or dict of shapes, in the order of storage; all zeros at first."""
        super().__init__()
        self.shapes = {name: tuple(shape) for name, shape in flatten(shapes).items()}
        self.xp, self.dtype = xp, np.dtype(dtype)
        starts, end = [], 0
        for shape in self.shapes.values():
            starts.append(end)
            end += -(-math.prod(shape) // ALIGNMENT) * ALIGNMENT
        self.vector = xp.zeros(end, dtype)
        self.flat = {
            name: self.vector[start : start + math.prod(shape)].reshape(shape)
            for start, (name, shape) in zip(starts, self.shapes.items(), strict=True)
        }
        for name, view in self.flat.items():
            *path, last = name.split(".")
            here = self
            for key in path:
                here = here.setdefault(key, Views())
            here.setdefault(last, view)

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], xp: Any = np, dtype: Any = np.float32) -> "Params":
        """Parameters with the values of host `arrays`, nested or by dotted names, moved to `xp`."""
        arrays = flatten(arrays)
        params = cls({name: np.shape(a) for name, a in arrays.items()}, xp, dtype)
        for name, array in arrays.items():
            params.flat[name][...] = xp.asarray(array, dtype=dtype)
        return params

    def to_host(self) -> dict[str, np.ndarray]:
        """Every array by its dotted name, as a NumPy array."""
        return {name: to_numpy(array) for name, array in self.flat.items()}

    def __reduce__(self):
        """Copied and pickled as host arrays."""
        return _from_host, (self.to_host(), self.dtype)

    def zeros_like(self) -> "Params":
        """Zeros in the same layout: gradients, Adam's moments."""
        return Params(self.shapes, self.xp, self.dtype)

    @property
    def count(self) -> int:
        """How many numbers the model learns."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def weights(self):
        """Vector of 1 where an array has two axes or more, else 0: what weight decay may shrink."""
        mark = self.zeros_like()
        for view in mark.flat.values():
            if view.ndim >= 2:
                view[...] = 1
        return mark.vector


def _from_host(arrays, dtype):
    return Params.from_arrays(arrays, dtype=dtype)


def flatten(tree, prefix=""):
    """Nested dicts as one, in their order: {"head": {"W": a}} -> {"head.W": a}."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def add(grads, dparams):
    """grads += dparams, both nested dicts of the same names; dparams may leave some out.

    A RowGradient adds its rows. A gradient with fewer rows than the array, as that of the first n
    positions, adds to the first of them.
    """
    for name, gradient in dparams.items():
        view = grads[name]
        if isinstance(gradient, dict):
            add(view, gradient)
        elif hasattr(gradient, "add_to"):
            gradient.add_to(view)
        else:
            if gradient.shape != view.shape:
                view = view[: len(gradient)]
            view += gradient
