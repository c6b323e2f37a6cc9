"""Forecasts of a series from its past: patches, blocks, and one linear map to all steps ahead.

    patches   x₀ = (patch @ Wp.T + bp) ⊙ (P + offset)   16 time steps, every 8 time steps
    blocks    x_l = block_l(x_{l-1})       by pattern, "projection*2,attention" by default
    head      y = flatten(x_L) @ W.T + b   every step of the horizon at once

Every channel of the series is read separately, with the same weights (channel independence: Nie et
al. 2023, "A time series is worth 64 words"). P. Ekin, "Attention-driven transformers" (2025), whose
released benchmark.py this follows, claims that only the last block needs to mix tokens.

As the level of a series drifts, `normalise` subtracts that of each window and adds it back.
"""

import numpy as np

from minisum import init, mixers
from minisum.backend import array_module, constant
from minisum.errors import UserError, require_known
from minisum.layers import linear_layer
from minisum.models.base import Model
from minisum.models.blocks import Block, Stack
from minisum.ops import gelu, mean_squared_error
from minisum.ops.dropout import draw_keep
from minisum.params import add

NORMALISE = ("none", "last", "standard")
POSITIONS = ("multiply", "add")
SMALLEST_DEVIATION = 1e-5  # of a window, for those that do not move at all


class WindowModel(Model):
    """Windows (B, L, C) in, forecasts (B, horizon, C) out; squared error over known targets.

    window L, horizon in time steps. normalise: "none"; "last", each channel's last value is
    subtracted; "standard", its mean, and it is divided by its deviation (Kim et al. 2022, RevIN,
    without the affine map). Both are undone in the forecast.

    A batch holds windows (B, L, C) and targets (B, horizon, C), NaN where nothing was measured:
    such targets are ignored. Subclasses define `init` and `rows`.
    """

    def __init__(self, window, horizon, normalise="none"):
        require_known("normalise", normalise, NORMALISE)
        self.window, self.horizon, self.normalise = window, horizon, normalise

    def activation_size(self, batch):
        return batch["windows"][0].size

    def count_targets(self, batch):
        """How many targets were measured."""
        return int((batch["targets"] == batch["targets"]).sum())

    def loss(self, params, batch, total):
        series, targets = rows_of(batch["windows"]), rows_of(batch["targets"])
        xp, known = array_module(targets), targets == targets
        level, scale = self.level(series)
        y, back_rows = self.rows(params, (series - level) / scale, batch)
        y = xp.where(known, y * scale + level, 0)
        loss, back_loss = mean_squared_error(y, xp.where(known, targets, 0), total=total)

        def back(grads):
            dy, _ = back_loss(1.0)
            back_rows(dy * scale, grads)

        return loss, back

    def predict(self, params, batch):
        """Forecasts (B, horizon, C), on the scale of the windows."""
        B, _, C = batch["windows"].shape
        series = rows_of(batch["windows"])
        level, scale = self.level(series)
        y, _ = self.rows(params, (series - level) / scale, {})
        return (y * scale + level).reshape(B, C, self.horizon).transpose(0, 2, 1)

    def rows(self, params, series, noise):
        """series (R, L), a channel of a window each -> y (R, horizon), back(dy, grads)."""
        raise NotImplementedError

    def level(self, series):
        """What is subtracted from each row, and what it is divided by."""
        if self.normalise == "none":
            return 0.0, 1.0
        if self.normalise == "last":
            return series[:, -1:], 1.0
        deviation = series.std(axis=1, keepdims=True)
        return series.mean(axis=1, keepdims=True), deviation + SMALLEST_DEVIATION


def rows_of(windows):
    """(B, n, C) -> (B C, n): a row for each channel of each window."""
    return windows.transpose(0, 2, 1).reshape(-1, windows.shape[1])


class Forecaster(WindowModel):
    """Patches, positions, blocks with the norm after, a flat linear head.

    layers: a list of mixers or a pattern (`mixers.parse_pattern`). width d, heads H, d_ff the width
    inside the token networks. patch and stride in time steps. patches_from: the "end" of the
    window, so that what does not fill a patch is its oldest values, or its "start", as published.
    positions: "multiply" by P + position_offset or "add" P. dropout, attention_dropout: the rates
    in the token networks and among attention's weights while training. attention_draw: see
    `init.attention`.
    """

    def __init__(
        self, window, horizon, layers="projection*2,attention", width=128, heads=8, d_ff=256,
        patch=16, stride=8, patches_from="end", positions="multiply", position_offset=1.0,
        dropout=0.0, attention_dropout=0.0, attention_draw="glorot", normalise="none",
    ):  # fmt: skip
        super().__init__(window, horizon, normalise)
        if not 1 <= stride <= patch <= window:
            raise UserError(
                f"patches of {patch} every {stride} do not cover a window of {window}: needed is "
                "stride <= patch <= window"
            )
        require_known("positions", positions, POSITIONS)
        names = mixers.parse_pattern(layers, causal=False) if isinstance(layers, str) else layers
        self.kinds = [mixers.parse_name(name)[0] for name in names]
        self.width, self.heads, self.d_ff = width, heads, d_ff
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.patches = 1 + (window - patch) // stride
        first = (window - patch) % stride if patches_from == "end" else 0
        self.index = first + stride * np.arange(self.patches)[:, None] + np.arange(patch)
        attention = {"attention": {"draw": attention_draw, "dropout": attention_dropout}}
        built = [
            mixers.build(name, width, heads, self.patches, **attention.get(kind, {}))
            for name, kind in zip(names, self.kinds, strict=True)
        ]
        blocks = [Block(mixer, d_ff, gelu, dropout=dropout) for mixer in built]
        self.stack = Stack(blocks, width, self.patches, positions, position_offset, norm=False)

    def init(self, rng):
        patch = init.linear(rng, self.width, self.index.shape[1])
        stack = self.stack.init(rng)
        head = init.linear(rng, self.horizon, self.patches * self.width)
        return {"patch": patch, **stack, "head": head}

    def noise(self, rng, batch):
        """Survivors of dropout inside and after each block's token network, and in attention."""
        B, _, C = batch["windows"].shape
        n, noise = self.patches, {}
        for i, kind in enumerate(self.kinds):
            for place, width in (("inner", self.d_ff), ("outer", self.width)) * bool(self.dropout):
                noise[f"keep.{i}.{place}"] = draw_keep(rng, (B, C * n, width), self.dropout)
            if kind == "attention" and self.attention_dropout:
                shape = (B, C * self.heads * n, n)
                noise[f"keep.{i}.weights"] = draw_keep(rng, shape, self.attention_dropout)
        return noise

    def activation_size(self, batch):
        return batch["windows"].shape[2] * self.patches * self.width

    def rows(self, params, series, noise):
        patches = series[:, constant(self.index, array_module(series))]
        x, back_patch = linear_layer(params["patch"], patches)  # (R, patches, d)
        shape = x.shape
        keeps = [{} for _ in self.stack.blocks]
        for name, keep in noise.items():
            if name.startswith("keep."):
                _, i, place = name.split(".")
                heads = (self.heads,) if place == "weights" else ()
                keeps[int(i)][place] = keep.reshape(len(x), *heads, self.patches, -1)
        x, back_stack = self.stack(params, x, keeps=keeps)
        y, back_head = linear_layer(params["head"], x.reshape(len(x), -1))  # (R, horizon)

        def back(dy, grads):
            dflat, dhead = back_head(dy)
            add(grads, {"head": dhead})
            dx = back_stack(dflat.reshape(shape), grads)
            add(grads, {"patch": back_patch(dx)[1]})

        return y, back
