"""The slope of a function along a line, by differences, and how far off it may be.

A long step has a truncation error, a short one a rounding error, and the best step depends on the
function. So no single step is trusted: slopes over ever shorter steps are extrapolated to a step of
0, and their differences show which of them is best, and how far off it may be.
"""

import math

import numpy as np

from minisum.protocol import ROUNDINGS

# The longest step is LONGEST times the usual one. An irrational ratio to the next, so that
# roundings and stairs do not repeat themselves from step to step.
LONGEST, SHRINK, STEPS, COLUMNS = 300.0, math.sqrt(13.7), 26, 4
FAINT = 1e-6  # a share of a slope that is as good as nothing


def prober(value, middle, host, direction, gradient, raised):
    """What differences find at a step: L's slope, how far those of both sides differ, L's size.

    The size is what roundings are measured by; where L is steep, those of the argument count.
    raised: a list for the errors of steps that leave where the op is defined.
    """
    least_size = max(np.abs(middle).sum(), np.abs(gradient * direction).sum())

    def at(changed):
        try:
            return value(changed)
        except Exception as error:
            raised.append(error)
            return np.full_like(middle, math.nan)

    def probe(step):
        up, down = at(host + step * direction), at(host - step * direction)
        with np.errstate(all="ignore"):
            slope = float((up - down).sum() / (2 * step))
            gap = float(abs((up + down - 2 * middle).sum()) / step)
            return slope, gap, max(np.abs(up).sum(), least_size, abs(slope))

    return probe


def extrapolate(probe, first_step, typical, largest):
    """(slope at a step of 0, its error, gap of its sides on a kink, a note): ever shorter steps.

    The best of all rows (see _next_row) is taken. Shorter steps have to confirm it, since
    neighbours may agree by chance, and overrule it where they are surer of another slope, as beside
    a kink. typical: the size of the argument's gradients, largest: of its entries, or 1.
    """
    best, least, most, swallowed = math.nan, math.inf, 0.0, 0.0
    row, later, gaps, overruled = [], [], [], False
    for i in range(STEPS):
        step = LONGEST * first_step / SHRINK**i
        slope, gap, size = probe(step)
        rounding = noise(step) * size
        if rounding > SHRINK**3 * least:
            break
        # A small L may be what is left of numbers near 1, as large as the argument's or of steeper
        # entries, as the loss of a sure answer is, and then its roundings are theirs.
        unseen = noise(step) * max(size, largest, typical)
        gap = gap if gap > 4 * unseen else 0.0
        if 40 * unseen < max(gap, *gaps, 0.0):
            gaps.append(gap)
        row, off, value = _next_row(row, slope, rounding)
        differs = abs(value - best) > least + off
        if abs(value - best) > least + off + unseen:
            least, later, overruled, differs = math.inf, [], True, False
        later.append(value)
        if off < least and not differs:
            best, least, later, most = value, off, [], max(unseen, FAINT * typical)
            swallowed = unseen if value == 0 else 0.0  # by roundings, if L does not move at all
    error = max(least, swallowed, *(abs(best - value) for value in later))
    # Of a smooth op gaps shrink as the step.
    kink = gaps[-1] if len(gaps) > 2 and gaps[-1] > gaps[-3] / 2 else 0.0
    note = ""
    if math.isnan(best):
        note = " (NaN beside it, too: is this the edge of where the op is defined?)"
    elif overruled or not error <= min(most, max(1e-3 * abs(best), SHRINK**3 * least)):
        note = (
            " (steps of different length differ: a kink or a jump is near, or the op is too steep"
            " or computes in float32 inside)"
        )
    return best, min(error, most), kink, note


def _next_row(above, slope, rounding):
    """The tableau's row of a shorter step, and the error and value of the best number in it.

    C. J. F. Ridders, 1982, "Accurate computation of F'(x) and F'(x) F''(x)": each extrapolation
    takes one more power of the step away, and is as far off as it is from the two it is made of.
    """
    row, least, best = [slope], math.inf, math.nan
    for column, coarser in enumerate(above[:COLUMNS], start=1):
        finer = row[-1]
        row.append(finer + (finer - coarser) / (SHRINK ** (2 * column) - 1))
        off = max(abs(row[-1] - finer), abs(row[-1] - coarser), rounding)
        if off < least:
            least, best = off, row[-1]
    return row, least, best


def noise(step):
    """What roundings may do to a slope where L's terms are 1 in all."""
    return ROUNDINGS * np.finfo(float).eps / step
