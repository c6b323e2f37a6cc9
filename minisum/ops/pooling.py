"""From n tokens to one vector by a sum or a mean, in time linear in n."""

from minisum.backend import array_module


def sum_tokens(x, mask=None):
    """y[b] = Σ x[b, t] over real tokens t.   x (B, n, d), mask (B, n) bool or None -> y (B, d)

    Each term of a sum has derivative one: dx[b, t] = dy[b] at real tokens, 0 at padding. A text
    without tokens gives zero.

    Saved: mask, and the shape of x.
    """
    shape = x.shape

    def back(dy):
        return _broadcast(dy, mask, shape), None

    return masked(x, mask).sum(axis=1), back


def mean_tokens(x, mask=None, power=1.0):
    """y[b] = Σ x[b, t] / c[b]^power over the c[b] real tokens t of text b.

    x (B, n, d), mask (B, n) bool or None -> y (B, d). Power 1 is the mean; 1/2 divides by √c, so
    that the scale of a sum of independent terms does not grow. A text without tokens gives zero.

    The sum's gradient over the same divisor: dx[b, t] = dy[b] / c[b]^power at real tokens, else 0.

    Saved: mask, c^power, and the shape of x.
    """
    xp, shape = array_module(x), x.shape
    count = xp.full((shape[0], 1), shape[1]) if mask is None else mask.sum(axis=1)[:, None]
    divisor = (xp.maximum(count, 1) ** power).astype(x.dtype)  # (B, 1)

    def back(dy):
        return _broadcast(dy / divisor, mask, shape), None

    return masked(x, mask).sum(axis=1) / divisor, back


def _broadcast(dy, mask, shape):
    """dy[b] at every real token of text b, zeros at the padding."""
    return masked(array_module(dy).broadcast_to(dy[:, None, :], shape), mask)


def masked(x, mask):
    """x with zeros at the padding; `where`, since 0 * NaN would be NaN."""
    return x if mask is None else array_module(x).where(mask[:, :, None], x, 0)
