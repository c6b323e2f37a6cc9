"""minisum: linear-time sequence models in arrays, every gradient by hand and proved.

Importing the package needs NumPy alone. Start reading at `minisum.ops`.
"""

__version__ = "0.2.0"
