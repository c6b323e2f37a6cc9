"""Softmax, a block of threads a row: once before a loss, once inside attention."""

from minisum.backend import array_module
from minisum.fast.cuda.compiling import contiguous, launch, packing, threads_for


def softmax_loss(logits, bias, targets, ignore, in_place=False):
    """(p, losses) of rows logits (N, C) + bias (C) or None: softmax, and -log p[target].

    The loss is 0 where the target is `ignore`. in_place: p takes the place of the logits.
    """
    xp, (N, C) = array_module(logits), logits.shape
    logits, bias, targets = contiguous(logits, bias, targets)
    p, losses = logits if in_place else xp.empty_like(logits), xp.empty(N, logits.dtype)
    K = packing(C, logits, bias)
    arguments = logits, bias, targets, p, losses, C, ignore
    launch("softmax.softmax_loss", (N,), threads_for(C // K), *arguments, pack=K)
    return p, losses


def cross_entropy_back(p, targets, scale, ignore, in_place=False):
    """(p - onehot(targets)) * scale, 0 in ignored rows. scale: a number, here or on the device"""
    xp, (N, C) = array_module(p), p.shape
    p, targets = contiguous(p, targets)
    scale, dlogits = xp.full((), scale, p.dtype), p if in_place else xp.empty_like(p)
    arguments = p, targets, scale, dlogits, C, ignore
    launch("softmax.cross_entropy_back", (N,), threads_for(C), *arguments)
    return dlogits


def attention_weights(scores, mask, causal, scale):
    """softmax(scale * scores) over the keys that may be seen, in the place of the scores.

    scores (B, H, n, m), mask (B, m) bool or None; with `causal` the queries are the last n of the m
    tokens. A row in which no key may be seen is 0. Few threads a row, each with several packs under
    way.
    """
    B, H, n, m = scores.shape
    scores, mask = contiguous(scores, mask)
    K = packing(m, scores, mask)
    arguments = scores, mask, float(scale), int(causal), H, n, m
    launch("softmax.attention_weights", (B * H * n,), threads_for(m // K // 2), *arguments, pack=K)
    return scores


def attention_weights_back(dp, p, scale):
    """scale p (dp - Σ dp p), the gradient of the scores, in the place of dp (B, H, n, m)."""
    (dp,), (B, H, n, m) = contiguous(dp), p.shape
    K = packing(m, dp, p)
    arguments = dp, p, float(scale), m
    launch(
        "softmax.attention_weights_back", (B * H * n,), threads_for(m // K // 2), *arguments, pack=K
    )
    return dp
