"""Layer norm, a block of threads a token."""

from minisum.backend import array_module
from minisum.fast.cuda import compiling
from minisum.fast.cuda.compiling import contiguous, launch, packing, threads_for
from minisum.fast.cuda.sums import sum_leading

# Tokens whose share of the gains' gradient one thread adds up.
STRETCH = 32


def layer_norm(x, gain, bias, eps=1e-5):
    """One kernel forward and two backward."""
    if not compiling.runs_on(x, gain, bias):
        return NotImplemented
    xp, shape, d = array_module(x), x.shape, x.shape[-1]
    x, gain, bias = contiguous(x.reshape(-1, d), gain, bias)
    N, K = len(x), packing(d, x, gain, bias)
    pack, block = {"pack": K}, threads_for(d // K)
    y, mean, r = xp.empty_like(x), xp.empty(N, x.dtype), xp.empty(N, x.dtype)
    launch("norms.layer_norm", (N,), block, x, gain, bias, float(eps), y, mean, r, d, **pack)

    def back(dy):
        (dy,), dx = contiguous(dy.reshape(x.shape)), xp.empty_like(x)
        pack = {"pack": packing(d, x, gain, dy)}
        launch("norms.layer_norm_back", (N,), block, dy, x, gain, mean, r, dx, d, **pack)
        stretches = -(-N // STRETCH)
        shares = xp.empty((stretches, 2, d), x.dtype)
        grid, arguments = (stretches, -(-d // 64)), (dy, x, mean, r, shares, N, d, STRETCH)
        launch("norms.layer_norm_back_gains", grid, (64,), *arguments)
        dgain, dbias = sum_leading(shares.reshape(stretches, -1)).reshape(2, d)
        return dx.reshape(shape), dgain, dbias

    return y.reshape(shape), back
