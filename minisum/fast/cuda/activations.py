"""The normal distribution function, which CuPy has."""


def normal_cdf(x):
    try:
        from cupyx.scipy.special import ndtr
    except ImportError:
        return NotImplemented
    return ndtr(x)
