"""Random zeros during training, so that no single feature is relied on."""

from minisum.backend import array_module


def dropout(x, keep, rate):
    """y = x / (1 - rate) where `keep`, else 0.   x any shape, keep bool that broadcasts to x

    The survivors are scaled up so that y equals x on average. The caller draws `keep` on the host:
    both backends then drop the same entries, and back(dy) can be called twice.
    The same scaled mask applies to the gradient: dx = dy / (1 - rate) where `keep`, else 0.
    Srivastava et al. 2014.

    Saved: keep.
    """
    xp = array_module(x)
    scale = 1 / (1 - rate)

    def back(dy):
        return xp.where(keep, dy * scale, 0), None

    return xp.where(keep, x * scale, 0), back


def draw_keep(rng, shape, rate):
    """Which entries survive: bool of `shape`, each True with probability 1 - rate. Host array."""
    return rng.random(shape, dtype="float32") >= rate
