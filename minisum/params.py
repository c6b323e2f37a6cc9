"""All parameters of a model in one contiguous vector, with a named view for each array.

Gradients and both of Adam's moments mirror the vector. Zeroing, clipping, Adam, the sum over
processes and the checkpoint are then one line each, and on a GPU one kernel launch each.
"""

import math

import numpy as np

# Views start at multiples of 64 bytes (in float32), where vector units and cuBLAS are fastest.
ALIGNMENT = 16


class Params:
    """Named arrays that are views into `vector`.

    params["name"] is the view; `params["name"] += g` and `params.vector *= 2` both see the same
    memory. The few numbers between views (alignment) are zero and stay zero.
    """

    def __init__(self, shapes, xp=np, dtype=np.float32):
        """shapes: dict of name -> shape, in the order of storage. All zeros at first."""
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.xp, self.dtype = xp, np.dtype(dtype)
        starts, end = [], 0
        for shape in self.shapes.values():
            starts.append(end)
            end += -(-math.prod(shape) // ALIGNMENT) * ALIGNMENT
        self.vector = xp.zeros(end, dtype)
        self._views = {
            name: self.vector[start : start + math.prod(shape)].reshape(shape)
            for start, (name, shape) in zip(starts, self.shapes.items(), strict=True)
        }

    @classmethod
    def from_arrays(cls, arrays, xp=np, dtype=np.float32):
        """Parameters with the values of host `arrays` (dict of name -> array), moved to `xp`."""
        params = cls({name: np.shape(a) for name, a in arrays.items()}, xp, dtype)
        for name, array in arrays.items():
            params[name][...] = xp.asarray(array, dtype=dtype)
        return params

    def zeros_like(self):
        """Zeros in the same layout: gradients, Adam's moments."""
        return Params(self.shapes, self.xp, self.dtype)

    def __getitem__(self, name):
        return self._views[name]

    def __setitem__(self, name, value):
        """Lets `params[name] += g` work: the sum lands in the view, which stays where it is."""
        if value is not self._views[name]:
            self._views[name][...] = value

    def __iter__(self):
        return iter(self._views)

    def __contains__(self, name):
        return name in self._views

    def items(self):
        return self._views.items()

    @property
    def count(self):
        """How many numbers the model learns."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def group(self, prefix):
        """The views under `prefix.`, by the rest of their names: a mixer's share of a model."""
        start = prefix + "."
        return {name[len(start) :]: a for name, a in self._views.items() if name.startswith(start)}

    def weights(self):
        """Vector of 1 where an array has two axes or more, else 0: what weight decay may shrink."""
        mark = Params(self.shapes, self.xp, self.dtype)
        for view in mark._views.values():
            if view.ndim >= 2:
                view[...] = 1
        return mark.vector
