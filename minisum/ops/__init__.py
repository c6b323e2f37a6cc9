"""Operations: pure functions, each with its gradient beside it, one lesson a file.

    y, back = op(x, W, ...)       arrays and plain numbers in
    dx, dW, ... = back(dy)        one gradient per array argument, None for ids and masks
                                  (an op with a single array argument returns the bare gradient)

`dx` is the gradient of the loss with respect to `x`. `back` adds to nothing and may be called
twice; nothing writes to its inputs. A docstring gives the formula with shapes, derives the
backward pass, and names on its last line what the closure keeps (`Saved: ...`).

Letters: B batch, n tokens, d width, V vocabulary, H heads, h head width, C classes. A mask is
boolean and True where the token is real; it is applied with `where`, never by multiplication, so
that a NaN in the padding cannot survive. The derivative of ReLU at zero is zero.
"""

from minisum.ops.activations import gelu, relu, sigmoid, silu, softplus
from minisum.ops.attention import attention, attention_blocked, merge_heads, split_heads
from minisum.ops.dropout import dropout
from minisum.ops.embedding import add_positions, embed, modulate
from minisum.ops.linear import linear
from minisum.ops.losses import binary_cross_entropy, cross_entropy, mean_squared_error
from minisum.ops.norms import layer_norm, rms_norm
from minisum.ops.pooling import cumsum_tokens, mean_tokens, sum_tokens

__all__ = [
    "add_positions",
    "attention",
    "attention_blocked",
    "binary_cross_entropy",
    "cross_entropy",
    "cumsum_tokens",
    "dropout",
    "embed",
    "gelu",
    "layer_norm",
    "linear",
    "mean_squared_error",
    "mean_tokens",
    "merge_heads",
    "modulate",
    "relu",
    "rms_norm",
    "sigmoid",
    "silu",
    "softplus",
    "split_heads",
    "sum_tokens",
]
