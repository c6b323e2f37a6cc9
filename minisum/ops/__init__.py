"""Operations: pure functions, each with its gradient beside it, one lesson a file.

    y, back = op(x, W, ...)       arrays and plain numbers in
    dx, dW, ... = back(dy)        one gradient per array argument, None for ids and masks
                                  (an op with a single array argument returns the bare gradient)

    (y, state), back = op(x, ..., state=None)    ops that read a text in pieces: the state after
    dx, ..., dstate = back((dy, dstate))         one piece is that before the next; None counts as 0

`dx` is the gradient of the loss with respect to `x`. `back` adds to nothing and may be called
twice; nothing writes to its inputs. A docstring gives the formula with shapes, derives the
backward pass, and names on its last line what the closure keeps (`Saved: ...`).
`python -m minisum.ops` prints them all in a table and checks each.

What stands here is the textbook form. An op under `@has_fast_forms` also has faster ones, each held
equal to it by a test: see `minisum.fast`. `op.plain` is always the textbook form.

Letters: B batch, n tokens, d width, V vocabulary, H heads, h head width, C classes. In recurrences
over keys and values a head has keys of width K and values of width V, and a chunk has C tokens.

A token is a row. `x @ W.T` is a product of matrices, written as in the code; ⊙ multiplies entry by
entry; q·k is the inner product of two rows; side by side, a number multiplies what stands after
it. Σ_t sums over tokens, and a Σ without letters over all axes that the result lacks.

A mask is boolean and True where the token is real; it is applied with `where`, never by
multiplication, so that a NaN in the padding cannot survive. The derivative of ReLU at zero is zero.
"""

from minisum.ops.activations import gelu, relu, sigmoid, silu, softplus
from minisum.ops.attention import attention, merge_heads, split_heads
from minisum.ops.causal_conv import causal_conv
from minisum.ops.delta_rule import delta_rule, l2_norm
from minisum.ops.dropout import dropout
from minisum.ops.embedding import add_positions, embed, modulate
from minisum.ops.kernel_attention import elu_plus_one, kernel_attention
from minisum.ops.linear import linear
from minisum.ops.losses import (
    binary_cross_entropy,
    cross_entropy,
    linear_cross_entropy,
    mean_squared_error,
)
from minisum.ops.norms import layer_norm, rms_norm
from minisum.ops.pooling import cumsum_tokens, mean_tokens, sum_tokens
from minisum.ops.products import causal_product, full_product
from minisum.ops.rotary import rotate
from minisum.ops.running import decayed_sum, running_softmax_pool, running_sum, softmax_pool
from minisum.ops.summation import direct_summation

__all__ = [
    "add_positions", "attention", "binary_cross_entropy", "causal_conv", "causal_product",
    "cross_entropy", "cumsum_tokens", "decayed_sum", "delta_rule", "direct_summation", "dropout",
    "elu_plus_one", "embed", "full_product", "gelu", "kernel_attention", "l2_norm", "layer_norm",
    "linear", "linear_cross_entropy", "mean_squared_error", "mean_tokens", "merge_heads",
    "modulate", "relu", "rms_norm", "rotate", "running_softmax_pool", "running_sum", "sigmoid",
    "silu", "softmax_pool", "softplus", "split_heads", "sum_tokens",
]  # fmt: skip
