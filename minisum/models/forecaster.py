"""The future of a series from its past: patches, blocks, and one linear map to all steps ahead.

    patches   x₀ = (patch @ Wp.T + bp) ⊙ (P + bias) 16 values a patch, a new one every 8
    blocks    x_l = block_l(x_{l-1})                by pattern, "projection*2,attention" by default
    head      y = flatten(x_L) @ W.T + b            every step of the horizon at once

Every channel of the series is read by itself, by the same weights (channel independence: Nie et
al. 2023, "A time series is worth 64 words"). Only the last block needs to mix tokens, is the claim
of P. Ekin, "Attention-driven transformers" (2025), whose released benchmark.py this follows.

Series can wander: `normalise` takes each window's own level out and puts it back into the forecast.
"""

import numpy as np

from minisum import init, mixers
from minisum.backend import array_module, constant
from minisum.errors import UserError
from minisum.models.base import Model
from minisum.ops import (
    add_positions,
    dropout,
    gelu,
    layer_norm,
    linear,
    mean_squared_error,
    modulate,
)
from minisum.ops.dropout import draw_keep

NORMALISE = ("none", "last", "standard")
POSITIONS = ("multiply", "add")
SMALLEST_DEVIATION = 1e-5  # of a window, for those that do not move at all


class WindowModel(Model):
    """Windows (B, L, C) in, forecasts (B, horizon, C) out; squared error over known targets.

    window L, horizon in time steps. normalise: "none"; "last", each channel's last value is
    subtracted; "standard", its mean, and it is divided by its deviation (Kim et al. 2022, RevIN,
    without the affine map). The forecast gets both back.

    A batch holds windows (B, L, C) and targets (B, horizon, C), NaN where nothing was measured:
    such targets count for nothing. Subclasses define `init` and `rows`.
    """

    def __init__(self, window, horizon, normalise="none"):
        if normalise not in NORMALISE:
            raise UserError(f"normalise {normalise!r}: choose one of {', '.join(NORMALISE)}")
        self.window, self.horizon, self.normalise = window, horizon, normalise

    def activation_size(self, batch):
        return batch["windows"][0].size

    def count_targets(self, batch):
        """How many targets were measured."""
        return int((batch["targets"] == batch["targets"]).sum())

    def loss(self, params, batch, total):
        xp = array_module(batch["windows"])
        y, back_forecast = self.forecast(params, batch["windows"], batch)
        known = batch["targets"] == batch["targets"]
        loss, back_loss = mean_squared_error(
            xp.where(known, y, 0), xp.where(known, batch["targets"], 0), total=total
        )

        def back(grads):
            back_forecast(back_loss(1.0)[0], grads)

        return loss, back

    def predict(self, params, batch):
        """Forecasts (B, horizon, C), on the scale of the windows."""
        return self.forecast(params, batch["windows"])[0]

    def forecast(self, params, windows, noise=None):
        """y (B, horizon, C); back(dy, grads). The series themselves get no gradient."""
        B, L, C = windows.shape
        series = windows.transpose(0, 2, 1).reshape(B * C, L)
        level, scale = self._level(series)
        y, back_rows = self.rows(params, (series - level) / scale, noise or {})
        y = (y * scale + level).reshape(B, C, self.horizon).transpose(0, 2, 1)

        def back(dy, grads):
            back_rows(dy.transpose(0, 2, 1).reshape(B * C, self.horizon) * scale, grads)

        return y, back

    def rows(self, params, series, noise):
        """series (R, L), a channel of a window each -> y (R, horizon), back(dy, grads)."""
        raise NotImplementedError

    def _level(self, series):
        """What is subtracted from each row, and what it is divided by."""
        if self.normalise == "none":
            return 0.0, 1.0
        if self.normalise == "last":
            return series[:, -1:], 1.0
        deviation = series.std(axis=1, keepdims=True)
        return series.mean(axis=1, keepdims=True), deviation + SMALLEST_DEVIATION


class Forecaster(WindowModel):
    """Patches, positions, post-norm blocks, a flat linear head.

    layers: a pattern or list of names (see `parse_pattern`). width d, heads H, d_ff the width
    inside the token networks. patch and stride in time steps. positions: "multiply" by P + bias or
    "add" P. dropout forgets numbers of the token networks while training.
    """

    def __init__(
        self,
        window,
        horizon,
        layers="projection*2,attention",
        width=128,
        heads=8,
        d_ff=256,
        patch=16,
        stride=8,
        positions="multiply",
        position_bias=1.0,
        dropout=0.0,
        normalise="none",
    ):
        super().__init__(window, horizon, normalise)
        if not 1 <= stride <= patch <= window:
            raise UserError(
                f"patches of {patch} every {stride} do not cover a window of {window}: needed is "
                "stride <= patch <= window"
            )
        if positions not in POSITIONS:
            raise UserError(f"positions {positions!r}: choose one of {', '.join(POSITIONS)}")
        names = parse_pattern(layers) if isinstance(layers, str) else list(layers)
        self.width, self.d_ff, self.dropout = width, d_ff, dropout
        self.positions, self.position_bias = positions, position_bias
        # The patches end with the window: if they leave values out, it is the oldest ones.
        self.patches = 1 + (window - patch) // stride
        first = (window - patch) % stride
        self.index = first + stride * np.arange(self.patches)[:, None] + np.arange(patch)
        self.blocks = [
            ForecastBlock(mixers.build(name, width, heads, self.patches), d_ff) for name in names
        ]

    def init(self, rng):
        d, patch = self.width, self.index.shape[1]
        arrays = init_linear(rng, "patch", d, patch)
        arrays["positions"] = rng.normal(0.0, 1.0, (self.patches, d))
        for i, block in enumerate(self.blocks):
            arrays |= {f"blocks.{i}.{name}": a for name, a in block.init(rng).items()}
        return arrays | init_linear(rng, "head", self.horizon, self.patches * d)

    def noise(self, rng, batch):
        """Survivors of dropout inside and after each block's token network."""
        if not self.dropout:
            return {}
        B, _, C = batch["windows"].shape
        return {
            f"keep.{i}.{place}": draw_keep(rng, (B, C * self.patches, size), self.dropout)
            for i in range(len(self.blocks))
            for place, size in (("inner", self.d_ff), ("outer", self.width))
        }

    def activation_size(self, batch):
        return batch["windows"].shape[2] * self.patches * self.width

    def rows(self, params, series, noise):
        xp = array_module(series)
        patches = series[:, constant(self.index, xp)]
        x, back_patch = linear(patches, params["patch.W"], params["patch.b"])
        x, back_place = self._place(x, params["positions"])
        backs = []
        for i, block in enumerate(self.blocks):
            share = params.group(f"blocks.{i}")
            keeps = [noise.get(f"keep.{i}.{place}") for place in ("inner", "outer")]
            x, back_block = block(share, x, keeps, self.dropout)
            backs.append(back_block)
        flat = x.reshape(len(x), -1)
        y, back_head = linear(flat, params["head.W"], params["head.b"])
        shape = x.shape

        def back(dy, grads):
            dflat, dW, db = back_head(dy)
            grads["head.W"] += dW
            grads["head.b"] += db
            dx = dflat.reshape(shape)
            for i in reversed(range(len(backs))):
                dx, dparams = backs[i](dx)
                for name, gradient in dparams.items():
                    grads[f"blocks.{i}.{name}"] += gradient
            dx, dpositions = back_place(dx)
            grads["positions"] += dpositions
            _, dW, db = back_patch(dx)
            grads["patch.W"] += dW
            grads["patch.b"] += db

        return y, back

    def _place(self, x, positions):
        if self.positions == "add":
            return add_positions(x, positions)
        return modulate(x, positions, self.position_bias)


class ForecastBlock:
    """z = LN₁(x + mixer(x)), y = LN₂(z + drop(drop(GELU(z @ Wa.T + ba)) @ Wb.T + bb)): post-norm.

    With `projection` as the mixer it looks at one patch at a time.
    """

    def __init__(self, mixer, d_ff):
        self.mixer, self.d_ff = mixer, d_ff

    def init(self, rng):
        d = self.mixer.width
        arrays = {f"mixer.{name}": a for name, a in self.mixer.init(rng).items()}
        arrays |= init_linear(rng, "a", self.d_ff, d) | init_linear(rng, "b", d, self.d_ff)
        for norm in ("norm1", "norm2"):
            arrays[f"{norm}.gain"], arrays[f"{norm}.bias"] = np.ones(d), np.zeros(d)
        return arrays

    def __call__(self, params, x, keeps, rate):
        """keeps: the survivors of dropout inside and after the token network, or None each."""
        share = {name[6:]: a for name, a in params.items() if name.startswith("mixer.")}
        mixed, back_mixer = self.mixer(share, x)
        z, back_norm1 = layer_norm(x + mixed, params["norm1.gain"], params["norm1.bias"])
        inner, back_a = linear(z, params["a.W"], params["a.b"])
        active, back_active = gelu(inner)
        kept, back_inner = forget(active, keeps[0], rate)
        outer, back_b = linear(kept, params["b.W"], params["b.b"])
        added, back_outer = forget(outer, keeps[1], rate)
        y, back_norm2 = layer_norm(z + added, params["norm2.gain"], params["norm2.bias"])

        def back(dy):
            g = {}
            dz, g["norm2.gain"], g["norm2.bias"] = back_norm2(dy)
            dkept, g["b.W"], g["b.b"] = back_b(back_outer(dz))
            dthrough, g["a.W"], g["a.b"] = back_a(back_active(back_inner(dkept)))
            dsum, g["norm1.gain"], g["norm1.bias"] = back_norm1(dz + dthrough)
            dx, dmixer = back_mixer(dsum)
            g |= {f"mixer.{name}": gradient for name, gradient in dmixer.items()}
            return dsum + dx, g

        return y, back


def init_linear(rng, name, fan_out, fan_in):
    """{name}.W and {name}.b, both uniform within ±1/√fan_in."""
    limit = 1 / np.sqrt(fan_in)
    W = init.fan_in_uniform(rng, fan_out, fan_in)
    return {f"{name}.W": W, f"{name}.b": rng.uniform(-limit, limit, fan_out)}


def forget(x, keep, rate):
    """Dropout where there is a mask of survivors; back(dy) -> dx."""
    if keep is None:
        return x, lambda dy: dy
    y, back_dropout = dropout(x, keep.reshape(x.shape), rate)
    return y, lambda dy: back_dropout(dy)[0]


def parse_pattern(text):
    """Names of the layers, first to last: "projection*2,attention" is a list of three.

    Raises UserError for what is no bidirectional mixer and for a count that is no number from 1 on.
    """
    known = sorted(name for name, mixer in mixers.TABLE.items() if mixer.can_be_bidirectional)
    names = []
    for part in text.split(","):
        name, star, count = (piece.strip() for piece in part.partition("*"))
        if name not in known:
            raise UserError(
                f"layer pattern {text!r}: {name!r} is no bidirectional mixer; known: "
                f"{', '.join(known)}"
            )
        if star and not (count.isascii() and count.isdigit() and 1 <= int(count) <= 1024):
            raise UserError(f"layer pattern {text!r}: {count!r} is not a number from 1 to 1024")
        names += [name] * (int(count) if star else 1)
    return names
