"""Layer norm, a block of threads a token."""

from minisum.backend import array_module
from minisum.fast.cuda import compiling

# Tokens whose share of the gains' gradient one thread adds up, and the most stretches of them: a
# grid has no more blocks along its second axis.
STRETCH, MOST_STRETCHES = 32, 65535


def layer_norm(x, gain, bias, eps=1e-5):
    """One kernel forward and two backward."""
    if not compiling.runs_on(x, gain, bias):
        return NotImplemented
    xp, shape, d = array_module(x), x.shape, x.shape[-1]
    x, gain, bias = map(xp.ascontiguousarray, (x.reshape(-1, d), gain, bias))
    N, block = len(x), (compiling.threads_for(d), 1, 1)
    y, mean, r = xp.empty_like(x), xp.empty(N, x.dtype), xp.empty(N, x.dtype)
    arguments = (x, gain, bias, float(eps), y, mean, r, d)
    compiling.launch("norms.cu", "layer_norm", x.dtype, (N, 1, 1), block, *arguments)

    def back(dy):
        dy, dx = xp.ascontiguousarray(dy.reshape(x.shape)), xp.empty_like(x)
        arguments = (dy, x, gain, mean, r, dx, d)
        compiling.launch("norms.cu", "layer_norm_back", x.dtype, (N, 1, 1), block, *arguments)
        stretch = max(STRETCH, -(-N // MOST_STRETCHES))
        stretches = -(-N // stretch)
        shares = xp.empty((stretches, 2, d), x.dtype)
        grid, arguments = (-(-d // 64), stretches, 1), (dy, x, mean, r, shares, N, d, stretch)
        compiling.launch("norms.cu", "layer_norm_back_gains", x.dtype, grid, (64, 1, 1), *arguments)
        dgain, dbias = shares.sum(axis=0)
        return dx.reshape(shape), dgain, dbias

    return y.reshape(shape), back
