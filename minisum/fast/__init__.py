"""Faster forms of the operations, each equal to its textbook form, and how they are found.

`minisum.ops` holds the textbook forms. A function of the same name and signature in this package
computes the same in place, in chunks that fit a cache, or in one GPU kernel. Modules `host_*` are
for NumPy, `cuda` for CuPy, and the others for both.

    layer_norm(x, gain, bias)          calls the first form that takes these arrays
    layer_norm.plain(x, gain, bias)    the textbook form
    layer_norm.forms()                 its faster forms for NumPy's arrays; forms("cupy") on a GPU

A form that does not take its arguments (their type, their size) returns NotImplemented, as Python's
binary operators do, and the next one is tried.
"""

import functools
from importlib import import_module

# Modules to be asked, first to last: for NumPy's arrays, and for CuPy's.
FORMS = {
    "adam_update": (["host_adam"], ["cuda.adam"]),
    "add_scaled": ([], ["cuda.passes"]),
    "add_rows": (["host_embedding"], []),
    "attention": (["host_attention"], ["cuda.attention"]),
    "causal_product": (["chunked_product"], ["chunked_product"]),
    "cross_entropy": ([], ["cuda.losses"]),
    "cumsum": (["running"], ["cuda.running"]),
    **dict.fromkeys(("decayed_sum", "running_softmax_pool"), (["scans"], ["scans"])),
    "delta_rule": (["chunked_delta_rule"], ["chunked_delta_rule"]),
    "direct_summation": (["host_summation"], ["cuda.summation"]),
    "full_product": ([], ["cuda.linear"]),
    "gelu": (["host_activations"], []),
    "latent_average": (["latent_scan"], ["latent_scan"]),
    "layer_norm": (["host_norms"], ["cuda.norms"]),
    "linear": ([], ["cuda.linear"]),
    "linear_cross_entropy": (["blocked_losses"], ["blocked_losses"]),
    "log_linear_product": (["log_linear_chunks"], ["log_linear_chunks"]),
    "mlstm": (["exponential_gates"], ["exponential_gates"]),
    "normal_cdf": ([], ["cuda.activations"]),
    "rectified_attention": (["blocked_rectified"], ["blocked_rectified"]),
    "relu": ([], ["cuda.passes"]),
    "score_targets": (["blocked_losses"], ["blocked_losses"]),
    "selective_scan": (["pieces_of_scan"], ["pieces_of_scan"]),
    "slot_product": (["chunked_slots"], ["chunked_slots"]),
    "sum_leading": ([], ["cuda.sums"]),
    "unit_triangular_solve": ([], ["cuda.triangular"]),
    "wkv": (["wkv_scan"], ["wkv_scan"]),
    "window_attention": (["blocked_window"], ["blocked_window"]),
}


def has_fast_forms(plain):
    """Decorates a textbook form: calls go to the first faster form that takes the arguments."""
    loaded = {}

    def forms(place="numpy"):
        if place not in loaded:
            modules = FORMS[plain.__name__][place == "cupy"]
            found = (import_module(f"{__name__}.{module}") for module in modules)
            loaded[place] = [getattr(module, plain.__name__) for module in found]
        return loaded[place]

    @functools.wraps(plain)
    def op(x, /, *arguments, **options):
        place = type(x).__module__.partition(".")[0]
        for form in loaded[place] if place in loaded else forms(place):
            result = form(x, *arguments, **options)
            if result is not NotImplemented:
                return result
        return plain(x, *arguments, **options)

    op.plain, op.forms = plain, forms
    return op


def one_real_type(x, *others):
    """Whether all are float32 or all are float64, which is what forms take. None: no array."""
    for other in others:
        if other is not None and other.dtype != x.dtype:
            return False
    return x.dtype.char in "fd"
