"""Train on several processes of this machine without MPI: python -m train.launch --ranks 2 \
train.classifier --backend cupy

The processes are joined by pipes, which is all that NCCL needs to find the GPUs; on processors
mpiexec with mpi4py does the same, on several machines as well. All that follows the module is for
the module. The processes have no standard input.
"""

import argparse
import importlib.util
import sys

from minisum.errors import did_you_mean
from train.__main__ import COMMANDS
from train.run import children

MOST_RANKS = 64  # each is joined to every other by a pipe


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m train.launch",
        description="Run a training module on several processes of this machine, without MPI.",
    )
    parser.add_argument("--ranks", type=int, required=True, metavar="N", help="processes")
    parser.add_argument("module", help="train.classifier, train.causal, ...")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the module's own flags")
    given = parser.parse_args(arguments)
    if not 1 <= given.ranks <= MOST_RANKS:
        parser.error(f"--ranks {given.ranks}: from 1 to {MOST_RANKS} are possible")
    if not is_module(given.module):
        near = did_you_mean(given.module, [f"train.{name}" for name in COMMANDS])
        parser.error(f"there is no module {given.module}{near or ': python -m train lists some'}")
    return children.launch(given.ranks, given.module, given.arguments)


def is_module(name):
    try:
        found = importlib.util.find_spec(name)
        if found is not None and found.submodule_search_locations is not None:  # a package
            found = importlib.util.find_spec(f"{name}.__main__")
        return found is not None
    except (ImportError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main())
