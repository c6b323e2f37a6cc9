"""Direct summation: each token contributes a vector; the contributions are summed."""

from minisum.fast import has_fast_forms
from minisum.ops.activations import relu
from minisum.ops.embedding import embed, modulate
from minisum.ops.linear import linear
from minisum.ops.pooling import mean_tokens


@has_fast_forms
def direct_summation(ids, table, positions, offset, W, mask=None, power=0.0):
    """y[b] = Σ_t relu((table[ids[b, t]] ⊙ (positions[t] + offset)) @ W.T) / c[b]^power.

    ids (B, n) integer, table (V, d), positions (n, d), W (o, d), mask (B, n) bool or None ->
    y (B, o); the sum runs over the c[b] real tokens of text b. Power 0 sums, 1 averages.
    P. Ekin, "Summation-based transformers", the released classifier (2025).

    With x = table[ids], f = positions + offset, z = (x ⊙ f) @ W.T: dz[b, t] = dy[b] / c[b]^power
    where z[b, t] > 0 and the token is real, else 0; dW = dz.T @ (x ⊙ f); with dp = dz @ W,
    dpositions = Σ_b dp ⊙ x, and dtable[v] = Σ dp ⊙ f over the places of word v, a `RowGradient`.

    Saved: ids, positions, W, x, x ⊙ f, where z is positive, mask, c^power.
    """
    x, back_embed = embed(ids, table)  # (B, n, d)
    placed, back_modulate = modulate(x, positions, offset)
    z, back_linear = linear(placed, W)  # (B, n, o)
    contributions, back_relu = relu(z)
    y, back_mean = mean_tokens(contributions, mask, power)  # (B, o)

    def back(dy):
        dcontributions, _ = back_mean(dy)
        dplaced, dW = back_linear(back_relu(dcontributions))
        dx, dpositions = back_modulate(dplaced)
        _, dtable = back_embed(dx)
        return None, dtable, dpositions, dW, None

    return y, back
