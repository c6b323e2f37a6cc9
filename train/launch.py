"""Train on several processes of this machine without MPI: python -m train.launch --ranks 2 \
train.classifier --backend cupy

The processes are joined by pipes, which is all that NCCL needs to find the GPUs; on processors
mpiexec with mpi4py does the same, on several machines as well. All that follows the module is for
the module. The processes have no standard input.
"""

import argparse
import contextlib
import importlib.util
import itertools
import multiprocessing
import os
import signal
import sys
from multiprocessing import connection

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
        parser.error(f"there is no module {given.module} here: train.classifier would be one")
    return launch(given.ranks, given.module, given.arguments)


def is_module(name):
    try:
        found = importlib.util.find_spec(name)
        if found is not None and found.submodule_search_locations is not None:  # a package
            found = importlib.util.find_spec(f"{name}.__main__")
        return found is not None
    except (ImportError, ValueError):
        return False


def launch(ranks, module, arguments):
    """Run `python -m module arguments` as `ranks` joined processes; return the exit status."""
    context = multiprocessing.get_context("spawn")
    processes, asked = [], []

    def pass_on(number, frame):
        asked.append(number)
        children.pass_on([process.pid for process in processes if process.is_alive()], number)

    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # by nohup
            signal.signal(number, pass_on)
    ends = [{} for _ in range(ranks)]  # of each rank: peer -> connection
    try:
        spokesman = context.Lock()
        for one, other in itertools.combinations(range(ranks), 2):
            ends[one][other], ends[other][one] = context.Pipe()
        for rank in range(ranks):
            given = (rank, ranks, ends[rank], spokesman, module, arguments)
            process = context.Process(target=run_rank, args=given)
            process.start()
            processes.append(process)
    except (OSError, MemoryError) as error:
        for process in processes:
            process.kill()
        children.say(
            f"error: {ranks} processes cannot be started here: {error or 'not enough memory'}"
        )
        return 2
    for number in asked:  # while some had not begun
        pass_on(number, None)
    for end in itertools.chain.from_iterable(own.values() for own in ends):
        end.close()  # or a rank would not notice that another is gone
    return children.wait(processes)


def run_rank(rank, ranks, ends, spokesman, module, arguments):
    """One process of the group: join it, then be `python -m module arguments`."""
    with contextlib.suppress(AttributeError):  # Windows
        os.setsid()  # Ctrl-C reaches the launcher alone, which passes it on once
    children.begin(lambda: connection.wait([multiprocessing.parent_process().sentinel]))
    try:
        from train.run import group as process_group

        if ranks > 1:
            process_group.join(process_group.PipeGroup(rank, ranks, ends))
        children.run_module(module, arguments)
    # A command reports its own errors: these are of imports.
    except (ImportError, OSError, MemoryError) as error:
        if spokesman.acquire(block=False):  # it will be the same for all
            reason = str(error) or "not enough memory"
            children.say(
                f"error: rank {rank} of {ranks} cannot be started: {reason.splitlines()[0]}"
            )
        raise SystemExit(2) from None


if __name__ == "__main__":
    sys.exit(main())
