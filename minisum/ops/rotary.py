"""Rotary positions: each pair of channels is rotated by an angle that grows with the position."""

from minisum.backend import array_module


def rotate(x, positions):
    """y_i = x_i cos(t θ_i) - x_j sin(t θ_i), y_j = x_i sin(t θ_i) + x_j cos(t θ_i), j = i + h/2.

    x (B, H, n, h), h even, positions t (B or 1, n) integer -> y like x; θ_i = 10000^(-2i/h) for
    i < h/2. Each pair (x_i, x_j) is a point in a plane, rotated by the angle t θ_i. The product of
    a rotated query and a rotated key depends on positions only through their difference.
    Su et al. 2021, "RoFormer", in the half-split pairing.

    A rotation's adjoint is the rotation by the opposite angle: dx = rotate(dy, -positions).

    Saved: the cosines and sines (h numbers a position).
    """
    xp = array_module(x)
    half = x.shape[-1] // 2
    theta = 10000.0 ** (-xp.arange(half) / half)
    # In float64: at token 16,384 a float32 angle is wrong by a thousandth.
    angles = positions[:, None, :, None] * theta
    cos, sin = (f(angles).astype(x.dtype) for f in (xp.cos, xp.sin))

    def turn(z, sin):
        first, second = z[..., :half], z[..., half:]
        return xp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)

    def back(dy):
        return turn(dy, -sin), None

    return turn(x, sin), back
