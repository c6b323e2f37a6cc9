"""minisum: linear-time sequence models in arrays, every gradient written by hand and checked.

Importing the package needs NumPy alone. Start reading at `minisum.ops`. Check a gradient of your
own with `minisum.gradcheck(op, x)`; use a trained run with `minisum.load("runs/NAME")`.
"""

import importlib

__version__ = "0.2.0"

# Imported at their first use; their types are in __init__.pyi. `gradcheck` can be called.
MODULES = ("gradcheck", "mixers", "models", "ops", "runs")
FROM_RUNS = ("TextClassifier", "load")


def __getattr__(name):
    if name in MODULES:
        return importlib.import_module(f"minisum.{name}")
    if name in FROM_RUNS:
        return getattr(importlib.import_module("minisum.runs"), name)
    raise AttributeError(f"module 'minisum' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *MODULES, *FROM_RUNS})
