"""How factors are rounded to bfloat16, on any machine; what a GPU does is in test_kernels.py."""

import numpy as np

from minisum.fast.cuda.precision import plain_to_bfloat16


def to_float(bits):
    """bfloat16 is the upper half of a float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def test_the_nearest_bfloat16_and_the_even_one_of_two():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 4000, dtype=np.uint32)
    bits[:1000] = (bits[:1000] & 0xFFFF0000) + 0x8000  # ties
    x = bits.view(np.float32)
    x = x[np.isfinite(x) & (np.abs(x) < 1e38)]
    below = (x.view(np.uint32) >> 16).astype(np.uint16)  # towards zero
    distances = [np.abs(to_float(y) - x) for y in (below, below + 1)]
    further = distances[1] < distances[0]
    tie = distances[1] == distances[0]
    wanted = below + (further | (tie & (below % 2 == 1)))
    assert tie.sum() > 500
    np.testing.assert_array_equal(plain_to_bfloat16(x), wanted)


def test_infinity_and_nan_stay():
    x = np.array([np.inf, -np.inf, np.nan, 3.4e38], np.float32)
    np.testing.assert_array_equal(to_float(plain_to_bfloat16(x)), [np.inf, -np.inf, np.nan, np.inf])
