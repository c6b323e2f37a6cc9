"""Sums down the columns of a tall array, which every bias is owed."""

from minisum.backend import array_module
from minisum.fast.cuda.recording import matmul


def sum_rows(x):
    """Σ_i x[i].   x (N, d) -> (d,). The plain form is x.sum(axis=0).

    A product with ones: CuPy gives each column to one block of threads, and of 32,768 rows with
    256 columns that took 0.4 ms where a copy of the array takes 0.02 (H200, CuPy 14.2).
    """
    return matmul(array_module(x).ones((1, len(x)), x.dtype), x)[0]
