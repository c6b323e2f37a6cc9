"""A strict stand-in for CuPy, on machines without a GPU.

Its arrays live in the processor's memory but behave like CuPy's towards everyone else: they do
not mix with NumPy arrays, do not turn into them unasked, and reductions give arrays, not numbers.
A step that passes with them leaks no host array into device code. What it cannot show is that
CuPy has a function, and computes it alike: that needs a GPU and MINISUM_TEST_BACKEND=cupy.
"""

import types

import numpy as np


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    __module__ = "cupy"
    __hash__ = None

    def __init__(self, host):
        self._host = host

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self._host.ctypes.data)

    def get(self):
        return self._host.copy()

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use .get()")

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"np.{function.__name__} was given an array of the device")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        kwargs |= {} if out is None else {"out": out}
        result = getattr(ufunc, method)(*_host(inputs), **_host(kwargs))
        return _device(result) if out is None else out[0]

    def __getitem__(self, key):
        return _device(self._host[_host(key)])

    def __setitem__(self, key, value):
        self._host[_host(key)] = _host(value)

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __float__(self):
        return float(self._host)

    def __int__(self):
        return int(self._host)

    def __bool__(self):
        return bool(self._host)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return _wrapped(getattr(self._host, name))

    def __repr__(self):
        return f"device {self._host!r}"


def _host(x):
    """What NumPy may compute with; a host array among the arguments is the leak to be found."""
    if isinstance(x, ndarray):
        return x._host
    if isinstance(x, np.ndarray):
        raise TypeError(
            f"Unsupported type {type(x)}: a host array of shape {x.shape} met the device"
        )
    if isinstance(x, (tuple, list)):
        return type(x)(_host(part) for part in x)
    if isinstance(x, dict):
        return {name: _host(part) for name, part in x.items()}
    return x


def _device(x):
    if isinstance(x, (np.ndarray, np.generic)):
        return ndarray(np.asarray(x))
    if isinstance(x, tuple):  # also a named one, as slogdet's
        return tuple(map(_device, x))
    return [_device(part) for part in x] if type(x) is list else x


def _wrapped(thing):
    """A function that takes and gives arrays of the device; other things as they are."""
    if isinstance(thing, types.ModuleType):
        return Module(thing.__name__.replace("numpy", "cupy"), thing)
    if isinstance(thing, (type, np.ufunc)) or not callable(thing):
        return _device(thing)
    return lambda *args, **kwargs: _device(thing(*_host(args), **_host(kwargs)))


class Module(types.ModuleType):
    """NumPy's functions of the same names, for arrays of the device."""

    ndarray = ndarray

    def __init__(self, name, source):
        super().__init__(name)
        self._source = source

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return _wrapped(getattr(self._source, name))

    @staticmethod
    def asarray(x, dtype=None):
        """The one door: host arrays come in here."""
        return ndarray(np.array(x._host if isinstance(x, ndarray) else x, dtype=dtype))


module = Module("cupy", np)
