"""Arguments for every op, drawn by hypothesis: which are exact and which are smooth."""

from functools import partial

from conftest import XP

from minisum import ops
from minisum.backend import array_module, to_numpy
from minisum.strategies import cases

SIZES = {"B": (1, 3), "n": (1, 7), "d": (1, 6), "o": (1, 5), "V": (2, 6), "H": (1, 3), "h": (1, 4)}


def draw(**ranges):
    return cases(XP, **(SIZES | ranges))


def named(op, **constants):
    """`op` with its plain arguments bound, keeping its name for messages."""
    bound = partial(op, **constants)
    bound.__name__ = op.__name__
    return bound


def summation(ids, table, positions, W, mask=None):
    return ops.direct_summation(ids, table, positions, 1.0, W, mask)


EXACT = {
    "linear": lambda c: (ops.linear, c.grid("B n d"), c.grid("o d"), c.grid("o")),
    "linear without bias": lambda c: (ops.linear, c.grid("B d"), c.grid("o d")),
    "embed": lambda c: (ops.embed, c.ids("B n", c.V), c.grid("V d")),
    "modulate": lambda c: (named(ops.modulate, offset=2.0), c.grid("B n d"), c.grid("n d")),
    "direct_summation": lambda c: (
        summation, c.ids("B n", c.V), c.grid("V d"), c.grid("n d"), c.grid("o d"), c.mask()
    ),
    "direct_summation without mask": lambda c: (
        summation, c.ids("B n", c.V), c.grid("V d"), c.grid("n d"), c.grid("o d")
    ),
    "add_positions": lambda c: (ops.add_positions, c.grid("B n d"), c.grid("n d")),
    "relu": lambda c: (ops.relu, c.grid("B n d")),
    "sum_tokens": lambda c: (ops.sum_tokens, c.grid("B n d"), c.mask()),
    "sum_tokens without mask": lambda c: (ops.sum_tokens, c.grid("B n d")),
    "cumsum_tokens": lambda c: (ops.cumsum_tokens, c.grid("B n d"), c.mask()),
    "cumsum_tokens without mask": lambda c: (ops.cumsum_tokens, c.grid("B n d")),
    "dropout": lambda c: (named(ops.dropout, rate=0.5), c.grid("B n d"), c.keep("B 1 d")),
    "split_heads": lambda c: (
        named(ops.split_heads, heads=c.H), c.grid("B n 12")[..., : c.H * c.h]
    ),
    "merge_heads": lambda c: (ops.merge_heads, c.grid("B H n h")),
    "full_product": lambda c: (ops.full_product, *product_arrays(c, c.grid)),
    "full_product from a state": lambda c: (
        ops.full_product, *product_arrays(c, c.grid), c.grid("B H h o")
    ),
    "causal_product": lambda c: (ops.causal_product, *product_arrays(c, c.grid)),
    "causal_product from a state": lambda c: (
        ops.causal_product, *product_arrays(c, c.grid), None, c.grid("B H h o")
    ),
    "running_sum": lambda c: (ops.running_sum, c.grid("B n d")),
    "running_sum from a state": lambda c: (ops.running_sum, c.grid("B n d"), c.grid("B d")),
    "causal_conv": lambda c: (ops.causal_conv, c.grid("B n d"), c.grid("o d")),
    "causal_conv from a state": lambda c: (
        ops.causal_conv, c.grid("B n d"), c.grid("3 d"), c.grid("B 2 d")
    ),
}  # fmt: skip


def product_arrays(c, draw):
    """q, k, v."""
    return draw("B H n h"), draw("B H n h"), draw("B H n o")


def recurrence_case(op, decay, state, key=1.0, removal=False):
    """A recurrence over keys and values; decay is the letters of log_decay's shape, or None."""

    def make(c):
        arrays = list(product_arrays(c, c.normal))
        if op is ops.delta_rule:
            arrays[1] = arrays[1] * key
            arrays.append(c.uniform("B H n 1", 0, 2))
        arrays.append(decay and c.uniform(decay, -2, 0))
        arrays.append(c.normal("B H h o") if state else None)
        if removal:
            arrays.append(c.normal("B H n h") * key)
        return op, *arrays

    return make


def kernel_case(causal, state, clamp, eps=1e-6):
    def make(c):
        q, k = c.uniform("B H n h", 0.2, 1), c.uniform("B H n h", 0.2, 1)
        S = None
        if state:
            # The last column is the denominator of what was read before.
            S = c.uniform("B H h 9", 0.2, 1)[..., : c.o + 1]
        op = named(ops.kernel_attention, causal=causal, clamp=clamp, eps=eps)
        return op, q, k, c.normal("B H n o"), S

    return make


def away_from_zero(x):
    """Differences are no measure across a point where the second derivative jumps."""
    return x + XP.copysign(0.05, x)


def running_pool_case(c):
    """The state carries no gradient, and so is left out."""

    def op(k, v, mask):
        (y, _), back = ops.running_softmax_pool(k, v, mask)
        return y, lambda dy: back((dy, None))

    return op, c.normal("B n d", 2.0), c.normal("B n d"), c.mask()


def scan_arrays(c):
    """u, delta, A, B, C."""
    return (
        c.normal("B n d"), c.uniform("B n d", 0.1, 1), c.uniform("d h", -2, -0.1),
        c.normal("B n h"), c.normal("B n h"),
    )  # fmt: skip


def log_linear_case(c):
    """Four levels do for the longest text of eight tokens."""

    def log_linear_product(*arrays):
        (y, _), back = ops.log_linear_product(*arrays)
        return y, lambda dy: back((dy, None))

    decays, weights = c.uniform("B H n 1", -2, 0), c.uniform("B H n 4", 0, 1)
    return log_linear_product, *product_arrays(c, c.normal), decays, weights


def constant(state, like):
    """The state's arrays where `like` lives, and of its type."""
    return tuple(array_module(like).asarray(to_numpy(a), like.dtype) for a in state)


def latents_case(c):
    """From the state, which is constant, after two tokens before."""
    p, k, v = (c.normal("B H 2 h", 2.0), c.normal("B H 2 h", 2.0), c.normal("B H 2 o"))
    (_, state), _ = ops.latent_average(p, k, v)

    def latent_average(p, k, v):
        before = constant(state, k)
        (y, _), back = ops.latent_average(p, k, v, before)
        return y, lambda dy: back((dy, None))

    return latent_average, c.normal("B H n h"), c.normal("B H n h", 2.0), c.normal("B H n o")


def mlstm_case(c):
    """From the state, which is constant, after two tokens before.

    It divides by a number of at least e^-m, so that m of 6 makes every rounding 400 times as large.
    """
    log_forget, log_input = c.uniform("B H 2 1", -2, 0), c.uniform("B H 2 1", -2, 1)
    before = (c.normal("B H 2 h"), c.normal("B H 2 h"), c.normal("B H 2 o"), log_forget, log_input)
    (_, state), _ = ops.mlstm(*before)

    def mlstm(*arrays):
        before = constant(state, arrays[0])
        (y, _), back = ops.mlstm(*arrays, before)
        return y, lambda dy: back((dy, None))

    gates = c.uniform("B H n 1", -2, 0), c.uniform("B H n 1", -2, 1)
    return mlstm, *product_arrays(c, c.normal), *gates


def wkv_case(c):
    """From a state, which is constant: that of two tokens before."""
    w, u = c.uniform("d", -2, -0.1), c.normal("d")
    (_, state), _ = ops.wkv(c.normal("B 2 d", 2.0), c.normal("B 2 d"), w, u)

    def wkv(k, v, w, u):
        before = constant(state, k)
        (y, _), back = ops.wkv(k, v, w, u, before)
        return y, lambda dy: back((dy, None))

    return wkv, c.normal("B n d", 2.0), c.normal("B n d"), w, u


def attention_case(causal, masked):
    def make(c):
        arrays = [c.normal("B H n h"), c.normal("B H n h"), c.normal("B H n o")]
        return named(ops.attention, causal=causal), *arrays, c.mask() if masked else None

    return make


def dropped_attention_case(causal, masked):
    def make(c):
        op, *arrays = attention_case(causal, masked)(c)
        op = named(ops.attention_with_dropout, rate=0.3, causal=causal)
        return op, *arrays[:3], c.keep("B H n n"), *arrays[3:]

    return make


def window_case(causal, masked):
    """A window of two tokens; if causal, the queries are the last of the tokens."""

    def make(c):
        q, k, v = product_arrays(c, c.normal)
        if causal:
            q = q[:, :, c.n // 3 :]
        op = named(ops.window_attention, window=2, causal=causal)
        return op, q, k, v, c.mask() if masked else None

    return make


def rectified_case(causal):
    def make(c):
        q, k, v = product_arrays(c, c.normal)
        q = q[:, :, c.n // 3 :] if causal else q
        return named(ops.rectified_attention, causal=causal), q, k, v, c.mask()

    return make


SMOOTH = {
    "gelu": lambda c: (ops.gelu, c.normal("B n d", 2.0)),
    "sigmoid": lambda c: (ops.sigmoid, c.normal("B n d", 2.0)),
    "silu": lambda c: (ops.silu, c.normal("B n d", 2.0)),
    "softplus": lambda c: (ops.softplus, c.normal("B n d", 2.0)),
    "mean_tokens": lambda c: (ops.mean_tokens, c.normal("B n d"), c.mask()),
    "mean_tokens by root": lambda c: (
        named(ops.mean_tokens, power=0.5), c.normal("B n d"), c.mask()
    ),
    "mean_tokens without mask": lambda c: (ops.mean_tokens, c.normal("B n d")),
    "layer_norm": lambda c: (
        named(ops.layer_norm, eps=0.1), c.normal("B n d"), c.normal("d"), c.normal("d")
    ),
    "rms_norm": lambda c: (named(ops.rms_norm, eps=0.1), c.normal("B n d"), c.normal("d")),
    "attention": attention_case(False, False),
    "attention masked": attention_case(False, True),
    "attention causal": attention_case(True, False),
    "attention causal masked": attention_case(True, True),
    "attention_with_dropout": dropped_attention_case(False, True),
    "attention_with_dropout causal": dropped_attention_case(True, False),
    "coding_rate": lambda c: (ops.coding_rate, c.normal("B H n h"), c.uniform("B H n", 0, 1)),
    "coding_rate_bound": lambda c: (
        ops.coding_rate_bound, c.normal("B H n h"), c.uniform("B H n", 0, 1)
    ),
    "window_attention": window_case(False, True),
    "window_attention without mask": window_case(False, False),
    "window_attention causal": window_case(True, False),
    "window_attention causal masked": window_case(True, True),
    "rectified_attention": rectified_case(False),
    "rectified_attention causal": rectified_case(True),
    "causal_product decayed": recurrence_case(ops.causal_product, "B H n 1", True),
    "causal_product decayed alike": recurrence_case(ops.causal_product, "1 H n 1", False),
    "causal_product decayed by channel": recurrence_case(ops.causal_product, "B H n h", True),
    "causal_product of one key for all heads": lambda c: (
        ops.causal_product, c.normal("B 1 n h"), c.normal("1 1 n h"), c.normal("B H n o"),
        c.uniform("B H n 1", -2, 0), c.normal("B H h o"),
    ),
    "causal_product decayed by channel alike": recurrence_case(
        ops.causal_product, "1 H n h", False
    ),
    "kernel_attention": kernel_case(False, False, False),
    "kernel_attention clamped": kernel_case(False, True, True),
    "kernel_attention causal": kernel_case(True, True, False),
    "kernel_attention causal clamped": kernel_case(True, False, True),
    "kernel_attention with every denominator held": kernel_case(True, True, True, eps=1e3),
    "elu_plus_one": lambda c: (ops.elu_plus_one, away_from_zero(c.normal("B n d", 2.0))),
    "hedgehog": lambda c: (ops.hedgehog, c.normal("B H n h"), c.normal("h h"), c.normal("h")),
    "focused": lambda c: (ops.focused, away_from_zero(c.normal("B H n h")), c.normal("H h")),
    "focused by one": lambda c: (
        named(ops.focused, power=1), away_from_zero(c.normal("B H n h")), c.normal("H h")
    ),
    "favor": lambda c: (
        named(ops.favor, omega=to_numpy(c.normal("5 h"))), c.normal("B H n h")
    ),
    "log_normal_query": lambda c: (
        ops.log_normal_query, c.normal("B H n h"), c.uniform("H", 1, 2)
    ),
    "log_normal_key": lambda c: (ops.log_normal_key, c.normal("B H n h"), c.uniform("H", 1, 2)),
    "norm_aware_query": lambda c: (ops.norm_aware_query, away_from_zero(c.normal("B n h"))),
    "norm_aware_key": lambda c: (ops.norm_aware_key, away_from_zero(c.normal("B n h"))),
    "dpfp": lambda c: (named(ops.dpfp, nu=2), away_from_zero(c.normal("B n h"))),
    "taylor": lambda c: (ops.taylor, c.normal("B n h")),
    "kernel_cross_entropy": lambda c: (
        ops.kernel_cross_entropy, c.uniform("B H n h", 0.1, 1), c.uniform("B H n h", 0.1, 1),
        c.uniform("B H n n", 0, 1), c.mask(),
    ),
    "delta_rule": recurrence_case(ops.delta_rule, None, False, key=0.5),
    "delta_rule from a state": recurrence_case(ops.delta_rule, None, True, key=0.5),
    "delta_rule decayed": recurrence_case(ops.delta_rule, "B H n 1", True, key=0.5),
    "delta_rule decayed alike": recurrence_case(ops.delta_rule, "1 H n 1", False, key=0.5),
    "delta_rule decayed by channel": recurrence_case(ops.delta_rule, "B H n h", True, key=0.5),
    "delta_rule with a removal key": recurrence_case(
        ops.delta_rule, "1 H n h", True, key=0.5, removal=True
    ),
    "both_ways_product": lambda c: (
        ops.both_ways_product, *product_arrays(c, c.normal), c.uniform("B H n 1", -2, 0)
    ),
    "both_ways_product by channel alike": lambda c: (
        ops.both_ways_product, *product_arrays(c, c.normal), c.uniform("1 H n h", -2, 0)
    ),
    "both_ways_sum": lambda c: (ops.both_ways_sum, c.normal("B n d"), c.uniform("B n d", -2, 0)),
    "both_ways_sum alike": lambda c: (
        ops.both_ways_sum, c.normal("B n d"), c.uniform("1 n 1", -2, 0)
    ),
    "slot_product": lambda c: (
        ops.slot_product, *product_arrays(c, c.normal), c.uniform("B H n o", -2, 0)
    ),
    "slot_product from a state": lambda c: (
        ops.slot_product, *product_arrays(c, c.normal), c.uniform("1 H n o", -2, 0),
        c.normal("B H h o"),
    ),
    "log_linear_product": log_linear_case,
    "latent_average": latents_case,
    "mlstm": mlstm_case,
    "wkv": wkv_case,
    "selective_scan": lambda c: (ops.selective_scan, *scan_arrays(c)),
    "selective_scan from a state": lambda c: (
        ops.selective_scan, *scan_arrays(c), c.normal("B d h")
    ),
    "l2_norm": lambda c: (named(ops.l2_norm, eps=0.1), c.normal("B n d")),
    "rotate": lambda c: (ops.rotate, c.normal("B H n 4"), c.ids("B n", 50)),
    "decayed_sum": lambda c: (ops.decayed_sum, c.normal("B n d"), c.uniform("B n d", -2, 0)),
    "decayed_sum by constants": lambda c: (
        ops.decayed_sum, c.normal("B n d"), c.uniform("1 1 d", -2, 0), c.normal("B d")
    ),
    "decayed_sum from a state": lambda c: (
        ops.decayed_sum, c.normal("B n d"), c.uniform("B n d", -2, 0), c.normal("B d")
    ),
    "softmax_pool": lambda c: (
        ops.softmax_pool, c.normal("B n d", 2.0), c.normal("B n d"), c.mask()
    ),
    "running_softmax_pool": running_pool_case,
    "cross_entropy": lambda c: (ops.cross_entropy, c.normal("B n V", 2.0), c.ids("B n", c.V, -1)),
    "linear_cross_entropy": lambda c: (
        ops.linear_cross_entropy,
        c.normal("B n d"), c.normal("V d"), c.normal("V"), c.ids("B n", c.V, -1)
    ),
    "linear_cross_entropy without bias": lambda c: (
        ops.linear_cross_entropy, c.normal("B n d"), c.normal("V d"), None, c.ids("B n", c.V, -1)
    ),
    "cross_entropy of a shard": lambda c: (
        named(ops.cross_entropy, total=17), c.normal("B V", 2.0), c.ids("B", c.V)
    ),
    "binary_cross_entropy": lambda c: (
        ops.binary_cross_entropy, c.normal("B n", 3.0), c.uniform("B n", 0, 1)
    ),
    "mean_squared_error": lambda c: (ops.mean_squared_error, c.normal("B n"), c.normal("B n")),
}  # fmt: skip
