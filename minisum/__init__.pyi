"""The names that `import minisum` makes reachable, for type checkers."""

from minisum import mixers as mixers
from minisum import models as models
from minisum import ops as ops
from minisum import runs as runs
from minisum.gradcheck import gradcheck as gradcheck
from minisum.runs import TextClassifier as TextClassifier
from minisum.runs import load as load

__version__: str
