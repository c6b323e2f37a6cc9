"""Fused GPU kernels: one launch and one pass over memory for what plain ops do in several.

Nothing here computes anything new. Every function names the plain form that it equals, and a test
on a GPU compares the two. Kernels are compiled on first use, for float32 and float64.
"""

from minisum.fast.cuda.adam import adam, towards
from minisum.fast.cuda.columns import sum_rows
from minisum.fast.cuda.compiling import nothing, runs_on
from minisum.fast.cuda.norms import layer_norm, layer_norm_back
from minisum.fast.cuda.running import running_sum
from minisum.fast.cuda.softmax import (
    attention_weights,
    attention_weights_back,
    cross_entropy_back,
    softmax_loss,
)
from minisum.fast.cuda.summation import (
    embed_modulate,
    positions_back,
    relu_sum,
    relu_sum_back,
    words_back,
)
from minisum.fast.cuda.triangular import LARGEST_TRIANGLE, unit_triangular_solve

__all__ = [
    "LARGEST_TRIANGLE",
    "adam",
    "attention_weights",
    "attention_weights_back",
    "cross_entropy_back",
    "embed_modulate",
    "layer_norm",
    "layer_norm_back",
    "nothing",
    "positions_back",
    "relu_sum",
    "relu_sum_back",
    "running_sum",
    "runs_on",
    "softmax_loss",
    "sum_rows",
    "towards",
    "unit_triangular_solve",
    "words_back",
]
