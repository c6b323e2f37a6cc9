"""The two ends of direct summation as one op each, because on a GPU each is one kernel.

On NumPy they are the plain ops of the other files, one after the other: read those first.
"""

from minisum import kernels
from minisum.backend import array_module
from minisum.ops.activations import relu
from minisum.ops.embedding import embed, modulate
from minisum.ops.pooling import mean_tokens, token_divisor


def embed_modulate(ids, table, positions, bias):
    """y[b, t] = table[ids[b, t]] ⊙ (positions[t] + bias).

    ids (B, n) integer, table (V, d), positions (n, d) -> y (B, n, d). Equals modulate(embed(...)),
    and so do the gradients: dtable[v] = Σ dy ⊙ (positions + bias) over the places of word v, and
    dpositions[t] = Σ_b dy[b, t] ⊙ table[ids[b, t]].

    back(dy, add_to=G) adds the table's gradient to the rows of G that were read, and returns G:
    most rows of a table were not read, and a table of zeros for every shard would cost more than
    all the rest.

    Saved: ids, table, positions.
    """
    if kernels.runs_on(table, positions):
        ids = ids.astype("int32", copy=False)

        def back_fused(dy, add_to=None):
            dtable = array_module(dy).zeros_like(table) if add_to is None else add_to
            dpositions = kernels.embed_modulate_back(dy, ids, table, positions, bias, dtable)
            return None, dtable, dpositions

        return kernels.embed_modulate(ids, table, positions, bias), back_fused

    x, back_embed = embed(ids, table)
    y, back_modulate = modulate(x, positions, bias)

    def back(dy, add_to=None):
        dx, dpositions = back_modulate(dy)
        _, dtable = back_embed(dx, add_to)
        return None, dtable, dpositions

    return y, back


def relu_pool(x, mask=None, power=0.0):
    """y[b] = Σ relu(x[b, t]) / c[b]^power over the c[b] real tokens t of text b.

    x (B, n, d), mask (B, n) bool or None -> y (B, d). Equals mean_tokens(relu(x), mask, power):
    dx[b, t] = dy[b] / c[b]^power where x[b, t] > 0 and the token is real, else 0.

    Saved: which entries were positive, mask, c^power; on a GPU x itself, whose signs are read again.
    """
    if kernels.runs_on(x):
        divisor = token_divisor(x, mask, power) if power else None
        total = kernels.relu_sum(x, mask)

        def back_fused(dy):
            return kernels.relu_sum_back(dy / divisor if power else dy, x, mask), None

        return total / divisor if power else total, back_fused

    said, back_relu = relu(x)
    y, back_mean = mean_tokens(said, mask, power)

    def back(dy):
        dsaid, _ = back_mean(dy)
        return back_relu(dsaid), None

    return y, back
