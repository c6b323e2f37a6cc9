"""Train on several processes of this machine without MPI: python -m train.launch --ranks 2 \
train.classifier --backend cupy

The processes are joined by pipes, which is all that NCCL needs to find the GPUs; on processors
mpiexec with mpi4py does the same, on several machines as well. All that follows the module is for
the module. The processes have no standard input.
"""

import argparse
import importlib.util
import itertools
import multiprocessing
import os
import runpy
import signal
import sys
import threading
from multiprocessing import connection

from train.run import group as process_group

GRACE = 10.0  # seconds that the other ranks have to leave once one has failed


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m train.launch",
        description="Run a training module on several processes of this machine, without MPI.",
    )
    parser.add_argument("--ranks", type=int, required=True, metavar="N", help="processes")
    parser.add_argument("module", help="train.classifier, train.causal, ...")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the module's own flags")
    given = parser.parse_args(arguments)
    if given.ranks < 1:
        parser.error(f"--ranks {given.ranks}: at least 1 is needed")
    if not is_module(given.module):
        parser.error(f"there is no module {given.module} here: train.classifier would be one")
    return launch(given.ranks, given.module, given.arguments)


def is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def launch(ranks, module, arguments):
    """Run `python -m module arguments` as `ranks` joined processes; return the exit status."""
    context = multiprocessing.get_context("spawn")
    ends = [{} for _ in range(ranks)]  # of each rank: peer -> connection
    for one, other in itertools.combinations(range(ranks), 2):
        ends[one][other], ends[other][one] = context.Pipe()
    processes = [
        context.Process(target=run_rank, args=(rank, ranks, ends[rank], module, arguments))
        for rank in range(ranks)
    ]

    def pass_on(number, frame):
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, number)

    for process in processes:
        process.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    for end in itertools.chain.from_iterable(own.values() for own in ends):
        end.close()  # or a rank would not notice that another is gone
    return wait(processes)


def wait(processes):
    """The exit status of the first rank that fails, or 0. The others do not outlive it for long."""
    status, limit, late = 0, None, False
    running = {process.sentinel: process for process in processes}
    while running:
        ended = connection.wait(running, limit)
        if not ended:
            late = True
            for process in running.values():
                process.kill()
        for sentinel in ended:
            process = running.pop(sentinel)
            process.join()
            code = process.exitcode
            if code < 0 and not late:
                rank, name = processes.index(process), signal.Signals(-code).name
                say(f"error: rank {rank} was ended by {name}, and the run with it")
                status = 128 - code
            if code:
                status, limit = status or code, GRACE
    return status


def say(text):
    print(text, file=sys.stderr, flush=True)


def run_rank(rank, ranks, ends, module, arguments):
    """One process of the group: join it, then be `python -m module arguments`."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C reaches the launcher alone, which passes it on once
    threading.Thread(target=exit_with_launcher, daemon=True).start()
    if ranks > 1:
        process_group.join(process_group.PipeGroup(rank, ranks, ends))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def exit_with_launcher():
    """A launcher that was killed passes no signal on: stop as if it had."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
