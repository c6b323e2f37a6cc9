"""Layers that mixers and models share: an op together with its parameters.

y, back = layer(params, x, ...)      params: dict of arrays, or of further dicts
dx, dparams = back(dy)               dparams: a dict like params; back adds to nothing
"""

from minisum.backend import array_module
from minisum.ops import add_positions, embed, layer_norm, linear, modulate


def linear_layer(params, x):
    """y = x @ W.T + b with the W of params and its b, if it has one.   x (..., i) -> y (..., o)"""
    y, back_linear = linear(x, params["W"], params.get("b"))

    def back(dy):
        dx, dW, *db = back_linear(dy)
        return dx, {"W": dW, "b": db[0]} if "b" in params else {"W": dW}

    return y, back


def norm_layer(params, x):
    """Layer norm with the gain and the bias of params.   x (..., d) -> y like x"""
    y, back_norm = layer_norm(x, params["gain"], params["bias"])

    def back(dy):
        dx, dgain, dbias = back_norm(dy)
        return dx, {"gain": dgain, "bias": dbias}

    return y, back


def position_layer(params, x, kind, offset=0.0, places=None):
    """Tells tokens where they stand, with P = params["positions"] (m, d).   x (B, n, d) -> y like x

    kind: "multiply", y = x ⊙ (P[place] + offset); "add", y = x + P[place]; "none", y = x. places
    (B, n) integer, by default 0 to n - 1 in each text.
    """
    if kind == "none":
        return x, lambda dy: (dy, {})
    table = params["positions"]
    if places is None:
        rows = table[: x.shape[1]]
        y, back_op = add_positions(x, rows) if kind == "add" else modulate(x, rows, offset)

        def back(dy):
            dx, dpositions = back_op(dy)
            return dx, {"positions": dpositions}

        return y, back
    rows, back_rows = embed(places, table)
    if kind == "add":
        return x + rows, lambda dy: (dy, {"positions": back_rows(dy)[1]})
    factor = rows + offset
    return x * factor, lambda dy: (dy * factor, {"positions": back_rows(dy * x)[1]})


def token_places(x, mask=None, start=0):
    """Each token's place among the real ones: (1, n), or (B, n) with a mask; padding's is >= 0.

    Counted so, a text has the same places alone, padded left and padded right.
    """
    xp = array_module(x)
    if mask is None:
        return start + xp.arange(x.shape[1])[None]
    return xp.maximum(xp.cumsum(mask, axis=1) - 1, 0)
