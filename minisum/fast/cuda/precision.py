"""How exact a GPU's products of float32 are: one choice for the whole process.

float32   exact factors
tf32      tensor cores read 10 bits of each factor's mantissa
bf16      factors rounded to bfloat16, whose mantissa has 7 bits; half the memory to read

Sums are taken in float32 and results are float32. So are parameters, moments, norms and losses.
"""

from functools import cache

import numpy as np

from minisum.backend import array_module
from minisum.errors import UserError
from minisum.fast.cuda import compiling
from minisum.fast.cuda.passes import one_pass

chosen = "float32"


def choose(name, xp):
    """Have all products from now on in this precision. UserError where the GPU has no such."""
    global chosen
    if name != "float32" and not has_tensor_cores(xp):
        raise UserError(f"--precision {name} needs a GPU from the A100 on (compute capability 8.0)")
    chosen = name


@cache
def has_tensor_cores(xp):
    """Whether this GPU's tensor cores read TF32 and bfloat16."""
    return int(xp.cuda.Device().compute_capability) >= 80


def factor(x):
    """x as products read it, made once for several of them: bits of bfloat16 if that is chosen."""
    on_device = array_module(x) is not np
    return to_bfloat16(x) if chosen == "bf16" and on_device and x.dtype.char == "f" else x


def to_bfloat16(x):
    """The nearest bfloat16 of each float32 of x, even ones at a tie, as bits: uint16.

    bfloat16 is the upper half of a float32: what is added carries into it past the middle.
    """
    if not compiling.runs_on(x):
        return plain_to_bfloat16(x)
    (x,) = compiling.contiguous(x)
    y = array_module(x).empty(x.shape, "uint16")
    one_pass("to_bfloat16", x, y)
    return y


def plain_to_bfloat16(x):
    xp = array_module(x)
    bits = xp.ascontiguousarray(x).view("uint32")
    even = (bits >> 16) & 1
    rounded = ((bits + 0x7FFF + even) >> 16).astype("uint16")
    return xp.where(xp.isnan(x), xp.uint16(0x7FC0), rounded)
