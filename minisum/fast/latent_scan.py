"""`latent_average` as a product with decays: the averages fade as their largest key grows."""

from minisum.backend import array_module
from minisum.fast import one_real_type
from minisum.fast.chunked_product import causal_product
from minisum.fast.scans import decayed_sum, running_maximum
from minisum.ops.latents import first_latents


def latent_average(p, k, v, state=None):
    """`minisum.ops.latent_average` from the parallel forms of its sums.

    Saved: p / Z, Z, w, and what the decayed sum and the product save.
    """
    if not one_real_type(p, k, v):
        return NotImplemented
    xp, (B, H, *_) = array_module(k), k.shape

    def by_text(x):
        return x.reshape(B * H, *x.shape[2:])

    M, Z, S = first_latents(k, v) if state is None else state
    tops = running_maximum(by_text(k), by_text(M)).reshape(k.shape)
    fade = xp.concatenate([M[:, :, None], tops[:, :, :-1]], axis=2) - tops
    w = xp.exp(k - tops)
    (sums, last), back_sums = decayed_sum(by_text(w), by_text(fade), by_text(Z))
    sums = sums.reshape(k.shape)
    shares = p / sums
    (y, S), back_product = causal_product(shares, w, v, fade, S)

    def back(gradients):
        dshares, dw, dv, *_ = back_product((gradients[0], None))
        dsums = -dshares * shares / sums
        dw = dw + back_sums((by_text(dsums), None))[0].reshape(k.shape)
        return dshares / sums, w * dw, dv, None

    return (y, (tops[:, :, -1], last.reshape(M.shape), S)), back
