"""minisum: linear-time sequence models in arrays, every gradient written by hand and checked.

Importing the package needs NumPy alone. Start reading at `minisum.ops`. Check a gradient of your
own with `minisum.gradcheck(op, x)`.
"""

import importlib

__version__ = "0.2.0"


def __getattr__(name):
    """`minisum.gradcheck`, imported at its first use: a module that can be called."""
    if name == "gradcheck":
        return importlib.import_module("minisum.gradcheck")
    raise AttributeError(f"module 'minisum' has no attribute {name!r}")
