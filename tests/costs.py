"""What one layer of a mixer costs as the text grows: python -m tests.costs [NAME ...]

Forward and backward of one text in float32, width 64, 4 heads: CPU time, to which other work on the
machine adds nothing, and peak memory over the linear extrapolation a + b n from two shorter texts.
Then the time to read one token after 16,000 others over that after 250. Prints one row of
minisum/mixers/figures/costs.json per mixer, by default of all but attention and ReLA, whose time is
quadratic.
"""

import json
import sys
import time
import tracemalloc

import numpy as np

from minisum import machine, mixers
from minisum.params import Params

WIDTH, HEADS, LENGTHS = 64, 4, (4096, 8192, 16384)
EARLY, LATE = 250, 16000


def least_seconds(works, rounds):
    """Processor time of each, the least of all rounds, in turn so that noise meets them alike."""
    found = [[] for _ in works]
    for work in works:
        work()
    for _ in range(rounds):
        for work, seconds in zip(works, found, strict=True):
            start = time.process_time()
            work()
            seconds.append(time.process_time() - start)
    return [min(seconds) for seconds in found]


def peak_bytes(work):
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def costs(name, rounds=9):
    """[name, ratio, ratio, ms, bytes per token, memory / (a + b n), state, ratio of step times]."""
    causal = name.partition(":")[0] in mixers.names(causal=True)
    layer = mixers.build(name, WIDTH, HEADS, LENGTHS[-1] + 1, causal)
    rng = np.random.default_rng(0)
    params = Params.from_arrays(layer.init(rng))

    def both_ways(n):
        x = tokens(rng, n)
        return lambda: layer(params, x)[1](x)

    works = [both_ways(n) for n in LENGTHS]
    seconds, bytes_ = least_seconds(works, rounds), [peak_bytes(work) for work in works]
    straight = bytes_[1] + 2 * (bytes_[1] - bytes_[0])
    row = [name, *(round(b / a, 2) for a, b in zip(seconds, seconds[1:], strict=False))]
    row += [round(1000 * seconds[-1]), bytes_[-1] // LENGTHS[-1], round(bytes_[-1] / straight, 3)]
    return row + ([layer.state_size(LATE), steps(layer, params, rng)] if causal else [None, None])


def steps(layer, params, rng):
    """The time of one token after 16,000 others over that after 250."""
    states = [layer.step(params, tokens(rng, n))[1] for n in (EARLY, LATE)]
    x = tokens(rng, 1)
    works = [lambda s=s: [layer.step(params, x, s) for _ in range(40)] for s in states]
    early, late = least_seconds(works, 40)
    return round(late / early, 2)


def tokens(rng, n):
    return rng.normal(size=(1, n, WIDTH)).astype(np.float32)


def main():
    machine.keep_freed_memory()
    for name in sys.argv[1:] or [
        name for name in mixers.TABLE if name not in ("attention", "rela")
    ]:
        print(json.dumps(costs(name)), flush=True)


if __name__ == "__main__":
    main()
