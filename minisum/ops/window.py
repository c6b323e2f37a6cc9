"""Softmax attention within a window: each token attends to a fixed number of tokens before it."""

from minisum.backend import array_module
from minisum.fast import has_fast_forms
from minisum.ops.softmax_attention import attend, first_query, without_padding


@has_fast_forms
def window_attention(q, k, v, mask=None, window=64, causal=False):
    """y = p @ v, p = softmax(q @ k.T / √h) over the keys of the query's window.

    causal: the last `window` tokens, the query's own included; else all tokens of the query's
    block, the text being cut into blocks of `window` tokens.
    q (B, H, n, h), k (B, H, m, h), v (B, H, m, e), mask (B, m) bool over keys or None ->
    y (B, H, n, e). With `causal` the queries are the last n of the m tokens, else n = m. A query
    that may see no key gives zero. Beltagy, Peters and Cohan 2020, "Longformer", section 3.1;
    blocks: Qin et al. 2022, "The devil in linear transformer", section 4.2.

    The gradient is that of attention, since p is zero outside the window: dv = p.T @ dy and
    dp = dy @ v.T; ds = p ⊙ (dp - Σ_keys dp ⊙ p); dq = ds @ k / √h and dk = ds.T @ q / √h.

    Saved: q, k, v, p (n·m numbers a head).
    """
    xp, n, m = array_module(q), q.shape[2], k.shape[2]
    j, i = xp.arange(m), xp.arange(n)[:, None]
    if causal:
        i = i + first_query(n, m)
        visible = (j <= i) & (j > i - window)
    else:
        visible = j // window == i // window
    if mask is not None:
        visible = visible & mask[:, None, None]
    return attend(q, without_padding(k, mask), without_padding(v, mask), visible)
