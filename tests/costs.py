"""What one layer of a mixer costs as the text grows: python -m tests.costs NAME [NAME ...]

Forward and backward of one text in float32, width 64, 4 heads: processor time, which other work on
the machine does not add to, and the most memory that is in use at a time. Then the time to read one
token after 250 and after 16,000 others. Prints a row of minisum/mixers/figures/costs.json each.
"""

import json
import sys
import time
import tracemalloc

import numpy as np

from minisum import machine, mixers
from minisum.params import Params

WIDTH, HEADS, LENGTHS = 64, 4, (4096, 8192, 16384)


def processor_seconds(work, repeats=3):
    """The least of a few, after one to warm up."""
    work()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def costs(name):
    """[name, ratio, ratio, ms, bytes a token, state, ratio of a step's times]."""
    causal = name.partition(":")[0] in mixers.names(causal=True)
    layer = mixers.build(name, WIDTH, HEADS, LENGTHS[-1] + 1, causal)
    rng = np.random.default_rng(0)
    params = Params.from_arrays(layer.init(rng))

    def tokens(n):
        return rng.normal(size=(1, n, WIDTH)).astype(np.float32)

    seconds = []
    for n in LENGTHS:
        x = tokens(n)
        seconds.append(processor_seconds(lambda x=x: layer(params, x)[1](x)))
    tracemalloc.start()
    layer(params, x)[1](x)
    peak = tracemalloc.get_traced_memory()[1] // LENGTHS[-1]
    tracemalloc.stop()
    row = [name, *(round(b / a, 2) for a, b in zip(seconds, seconds[1:], strict=False))]
    row += [round(1000 * seconds[-1]), peak]
    return row + ([layer.state_size(16000), steps(layer, params, tokens)] if causal else ["", ""])


def steps(layer, params, tokens):
    """How much longer one token takes after 16,000 than after 250."""
    states = [layer.step(params, tokens(n))[1] for n in (250, 16000)]
    x = tokens(1)
    early, late = (
        processor_seconds(lambda s=s: [layer.step(params, x, s) for _ in range(40)], 7)
        for s in states
    )
    return round(late / early, 2)


def main():
    machine.keep_freed_memory()
    for name in sys.argv[1:]:
        print(json.dumps(costs(name)), flush=True)


if __name__ == "__main__":
    main()
