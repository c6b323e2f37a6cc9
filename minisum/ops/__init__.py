"""Operations: pure functions, each with its gradient beside it, one lesson a file.

    y, back = op(x, W, ...)       arrays and plain numbers in
    dx, dW, ... = back(dy)        one gradient per array argument, None for ids and masks
                                  (an op with a single array argument returns the bare gradient)

    (y, state), back = op(x, ..., state=None)    ops that read a text in parts: the state after one
    dx, ..., dstate = back((dy, dstate))         part is passed to the next; None counts as 0

`dx` is the gradient of the loss with respect to `x`. `back` accumulates nothing and may be called
twice; no function writes to its inputs. A docstring gives the formula with shapes, derives the
backward pass, and lists on its last line what the closure keeps (`Saved: ...`).
`python -m minisum.ops` prints all ops in a table and checks each.

These files hold the textbook forms. An op under `@has_fast_forms` also has faster ones, each tested
to be equal to it: see `minisum.fast`. `op.plain` is always the textbook form.

Letters: B batch, n tokens, d width, V vocabulary, H heads, h head width, C classes. In recurrences
over keys and values a head has keys of width K and values of width V, and a chunk has C tokens.

A token is a row vector. `x @ W.T` is a matrix product, as in the code; ⊙ multiplies entry by
entry; q·k is the inner product of two rows; a number before an array scales it. Σ_t sums over
tokens, a Σ without index over all axes that the result lacks.

A mask is boolean and True where the token is real; it is applied with `where`, never by
multiplication, so that a NaN in the padding cannot survive. The derivative of ReLU at zero is zero.
"""

from importlib import import_module

# The ops of each file; a file is imported when one of its ops is first asked for.
FILES = {
    "linear": ("linear",),
    "embedding": ("embed", "modulate", "add_positions"),
    "activations": ("relu", "gelu", "sigmoid", "silu", "softplus"),
    "pooling": ("sum_tokens", "mean_tokens"),
    "summation": ("direct_summation",),
    "dropout": ("dropout",),
    "norms": ("layer_norm", "rms_norm"),
    "losses": (
        "cross_entropy", "binary_cross_entropy", "mean_squared_error", "linear_cross_entropy",
    ),
    "softmax_attention": (
        "attention", "attention_with_dropout", "split_heads", "merge_heads",
    ),
    "window": ("window_attention",),
    "rectified": ("rectified_attention",),
    "rotary": ("rotate",),
    "products": ("full_product", "causal_product"),
    "linear_attention": ("kernel_attention", "elu_plus_one"),
    "feature_maps": ("hedgehog", "favor", "log_normal_query", "log_normal_key", "taylor"),
    "power_maps": ("focused", "norm_aware_query", "norm_aware_key", "dpfp"),
    "distillation": ("kernel_cross_entropy",),
    "delta": ("delta_rule", "l2_norm"),
    "convolution": ("causal_conv",),
    "rate_reduction": ("coding_rate", "coding_rate_bound"),
    "both_ways": ("both_ways_product", "both_ways_sum"),
    "log_linear": ("log_linear_product",),
    "slots": ("slot_product",),
    "latents": ("latent_average",),
    "exponential_gates": ("mlstm",),
    "decaying_softmax": ("wkv",),
    "state_space": ("selective_scan",),
    "running": ("cumsum_tokens", "running_sum", "decayed_sum"),
    "softmax_pooling": ("softmax_pool", "running_softmax_pool"),
}  # fmt: skip
FILE_OF = {name: file for file, names in FILES.items() for name in names}
__all__ = list(FILE_OF)


def __getattr__(name):
    if name not in FILE_OF:
        raise AttributeError(f"minisum.ops has no operation {name!r}")
    op = getattr(import_module(f"{__name__}.{FILE_OF[name]}"), name)
    globals()[name] = op
    return op


# Two ops have their file's name. Bound at once, or the name would come to mean the file.
from minisum.ops.dropout import dropout  # noqa: E402, F401
from minisum.ops.linear import linear  # noqa: E402, F401
