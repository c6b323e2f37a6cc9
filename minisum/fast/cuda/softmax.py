"""Softmax, a block of threads a row: once before a loss, once inside attention."""

from minisum.backend import array_module
from minisum.fast.cuda.compiling import launch, packing, threads_for


def softmax_loss(logits, bias, targets, ignore, in_place=False):
    """(p, losses) of rows logits (N, C) + bias (C) or None: softmax, and -log p[target].

    The loss is 0 where the target is `ignore`. in_place: p takes the place of the logits.
    """
    xp = array_module(logits)
    logits, targets = xp.ascontiguousarray(logits), xp.ascontiguousarray(targets)
    bias = None if bias is None else xp.ascontiguousarray(bias)
    N, C = logits.shape
    p = logits if in_place else xp.empty_like(logits)
    losses = xp.empty(N, logits.dtype)
    K = packing(C, logits, bias)
    launch(
        *("softmax.cu", "softmax_loss", logits.dtype, (N, 1, 1), (threads_for(C // K), 1, 1)),
        *(logits, bias, targets, p, losses, C, ignore),
        pack=K,
    )
    return p, losses


def cross_entropy_back(p, targets, scale, ignore, in_place=False):
    """(p - onehot(targets)) * scale, 0 in ignored rows. scale: a number, here or on the device"""
    xp = array_module(p)
    p, targets, (N, C) = xp.ascontiguousarray(p), xp.ascontiguousarray(targets), p.shape
    scale = xp.full((), scale, p.dtype)
    dlogits = p if in_place else xp.empty_like(p)
    launch(
        *("softmax.cu", "cross_entropy_back", p.dtype, (N, 1, 1), (threads_for(C), 1, 1)),
        *(p, targets, scale, dlogits, C, ignore),
    )
    return dlogits


def attention_weights(scores, mask, causal, scale):
    """softmax(scale * scores) over the keys that may be seen, in the place of the scores.

    scores (B, H, n, m), mask (B, m) bool or None; with `causal` the queries are the last n of the m
    tokens. A row in which no key may be seen is 0. As in minisum.ops.softmax_attention.
    """
    xp = array_module(scores)
    B, H, n, m = scores.shape
    scores = xp.ascontiguousarray(scores)
    mask = None if mask is None else xp.ascontiguousarray(mask)
    K = packing(m, scores, mask)
    launch(
        *("softmax.cu", "attention_weights", scores.dtype, (B * H * n, 1, 1), _threads(m // K)),
        *(scores, mask, float(scale), int(causal), H, n, m),
        pack=K,
    )
    return scores


def attention_weights_back(dp, p, scale):
    """scale p (dp - Σ dp p), the gradient of the scores, in the place of dp (B, H, n, m)."""
    dp, (B, H, n, m) = array_module(p).ascontiguousarray(dp), p.shape
    K = packing(m, dp, p)
    launch(
        *("softmax.cu", "attention_weights_back", p.dtype, (B * H * n, 1, 1), _threads(m // K)),
        *(dp, p, float(scale), m),
        pack=K,
    )
    return dp


def _threads(packs):
    """Of a block with a row of attention's weights: few, each with several packs under way."""
    return threads_for(packs // 2), 1, 1
