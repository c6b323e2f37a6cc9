"""Softmax, a block of threads a row: once before a loss, once inside attention."""

from minisum.backend import array_module
from minisum.fast.cuda.compiling import contiguous, launch, packing, threads_for


def loss_and_dscores(scores, bias, targets, ignore, scale, out):
    """(losses (N), dscores (N, C)) of scores (N, C) + bias (C) or None, in one kernel.

    dscores = (softmax - onehot(target)) * scale, 0 where the target is `ignore`, in `out`: like the
    scores, perhaps in their place, or uint16 for bfloat16.
    """
    xp, (N, C) = array_module(scores), scores.shape
    scores, bias, targets = contiguous(scores, bias, targets)
    scale, losses = xp.full((), scale, scores.dtype), xp.empty(N, scores.dtype)
    to = (None, out) if out.dtype.kind == "u" else (out, None)
    K = packing(C, scores, bias, out)
    arguments = scores, bias, targets, scale, losses, *to, C, ignore
    launch("softmax.loss_and_dscores", (N,), threads_for(C // K), *arguments, pack=K)
    return losses, out


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
