"""Layers that mixers and models share: an op together with its parameters.

y, back = layer(params, x, ...)      params: dict of arrays, or of further dicts
dx, dparams = back(dy)               dparams: a dict like params; back accumulates nothing
"""

from minisum.backend import array_module
from minisum.ops import add_positions, dropout, embed, layer_norm, linear, modulate, rms_norm


def linear_layer(params, x):
    """y = x @ W.T + b with the W of params and its b, if it has one.   x (..., i) -> y (..., o)"""
    y, back_linear = linear(x, params["W"], params.get("b"))

    def back(dy):
        dx, dW, *db = back_linear(dy)
        return dx, {"W": dW, "b": db[0]} if "b" in params else {"W": dW}

    return y, back


def norm_layer(params, x, eps=1e-5):
    """Layer norm with the gain and the bias of params, or RMSNorm if they have no bias.

    x (..., d) -> y like x
    """
    if "bias" not in params:
        y, back_norm = rms_norm(x, params["gain"])
    else:
        y, back_norm = layer_norm(x, params["gain"], params["bias"], eps)

    def back(dy):
        dx, *dparams = back_norm(dy)
        return dx, dict(zip(("gain", "bias"), dparams, strict=False))

    return y, back


def token_network(params, x, activation, keep=None, rate=0.0):
    """y = f(x @ Wup.T + bup) @ Wdown.T + bdown, or with f(x @ Wgate.T) ⊙ (x @ Wup.T) for f(...).

    The second if params have a layer "gate": with f = SiLU it is SwiGLU (Shazeer 2020, "GLU
    variants improve transformer"). x (B, n, d) -> y like x. keep: dropout's survivors before and
    after the last map, at `rate`.
    """
    up, back_up = linear_layer(params["up"], x)  # (B, n, d_ff)
    if gated := "gate" in params:
        gate, back_gate = linear_layer(params["gate"], x)
        active, back_active = activation(gate)
        inner = active * up
    else:
        inner, back_active = activation(up)
    if keep:
        inner, back_inner = dropout(inner, keep[0], rate)
    y, back_down = linear_layer(params["down"], inner)  # (B, n, d)
    if keep:
        y, back_outer = dropout(y, keep[1], rate)

    def back(dy):
        dparams = {}
        if keep:
            dy, _ = back_outer(dy)
        dinner, dparams["down"] = back_down(dy)
        if keep:
            dinner, _ = back_inner(dinner)
        if not gated:
            dx, dparams["up"] = back_up(back_active(dinner))
            return dx, dparams
        dx, dparams["up"] = back_up(dinner * active)
        dx_gate, dparams["gate"] = back_gate(back_active(dinner * up))
        return dx + dx_gate, dparams

    return y, back


def position_layer(params, x, kind, offset=0.0, places=None):
    """Adds or multiplies positions P = params["positions"] (m, d).   x (B, n, d) -> y like x

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
    """Each token's index among the real ones: (1, n), or (B, n) with a mask; padding's is >= 0.

    So a text has the same places alone, padded left and padded right.
    """
    xp = array_module(x)
    if mask is None:
        return start + xp.arange(x.shape[1])[None]
    return xp.maximum(xp.cumsum(mask, axis=1) - 1, 0)
