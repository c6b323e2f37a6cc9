"""Products of the tokens of a chunk that fade with the distance between them.

With one decay a head, a product of matrices times a matrix of decays. With one a key channel each
pair of tokens has decays of its own; the factored form (e^b ⊙ x) @ (e^{-b} ⊙ y).T would overflow,
so that the pairs are taken one distance after another, C²/2 K exponentials a chunk.
"""

from minisum.backend import add_into, array_module
from minisum.fast.chunks import lower
from minisum.fast.cuda import compiling, decayed
from minisum.fast.cuda.recording import matmul
from minisum.ops.products import transposed


def decayed_products(b):
    """⟨x|y⟩_ij = Σ_κ x_iκ y_jκ exp(b_iκ - b_jκ) for j <= i, 0 above the diagonal; its gradient.

    b (.., C, K or 1) running sums of logarithms of decays, or None for no decay -> two functions
    of x, y (.., C, K): products(x, y) = ⟨x|y⟩ (.., C, C), and back(dA, x, y) -> dx, dy, where what
    dA holds above the diagonal is not read.
    """
    by_channel = b is not None and b.shape[-1] > 1
    if by_channel and b.shape[-2] <= decayed.LONGEST and compiling.runs_on(b):
        return decayed.decayed_products(b)
    gamma = None if b is None or by_channel else decay_matrix(b)

    def faded(A):
        xp = array_module(A)
        return xp.where(lower(xp, A.shape[-1]), A, 0) if gamma is None else A * gamma

    def products(x, y):
        if not by_channel:
            return faded(matmul(x, transposed(y)))
        A = array_module(x).zeros((*x.shape[:-1], x.shape[-2]), x.dtype)
        for later, earlier, place, decay in _distances(b):
            A[place] = (x[later] * y[earlier] * decay).sum(axis=-1)
        return A

    def back(dA, x, y):
        if not by_channel:
            dscores = faded(dA)
            return matmul(dscores, y), matmul(transposed(dscores), x)
        dx, dy = (array_module(a).zeros_like(a) for a in (x, y))
        for later, earlier, place, decay in _distances(b):
            d = dA[place][..., None] * decay
            add_into(dx[later], d * y[earlier])
            add_into(dy[earlier], d * x[later])
        return dx, dy

    return products, back


def _distances(b):
    """For tokens 0, 1, ... apart: the later and the earlier ones, their places in A, and what is
    left in each channel from one to the other, exp(b_i - b_j) <= 1."""
    xp, C = array_module(b), b.shape[-2]
    for apart in range(C):
        i, j = slice(apart, C), slice(0, C - apart)
        later, earlier = (..., i, slice(None)), (..., j, slice(None))
        yield later, earlier, (..., xp.arange(C)[i], xp.arange(C)[j]), xp.exp(b[later] - b[earlier])


def decay_matrix(b):
    """Γ_ij = exp(b_i - b_j) for j <= i and 0 above the diagonal.   b (..., C, 1) -> (..., C, C)

    b is the running sum of logarithms of decays, so no exponent is positive. The factored form
    exp(b_i) exp(-b_j) overflows float32 after a few hundred tokens.
    """
    xp, C = array_module(b), b.shape[-2]
    return xp.exp(xp.where(lower(xp, C), b - transposed(b), -xp.inf))
