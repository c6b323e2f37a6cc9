"""Processes that commands start: each ends with its parent, however that ends.

A parent that is asked to end passes the signal on; one that is killed cannot. So a child waits, in
a thread, for the end of something that only its parent holds.
"""

import contextlib
import itertools
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
from multiprocessing import connection

from train import end_at_ctrl_c

GRACE = 10.0  # seconds to save the state, for a child whose parent or sibling is gone
STILL = 60.0  # seconds without news, after which ranks that are stopped are named


def main():
    """python -m train.run.children MODULE ...: standard input is a pipe from the parent."""
    pipe, nowhere = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    begin(lambda: os.read(pipe, 1))
    run_module(sys.argv[1], sys.argv[2:])


def begin(parent_gone):
    """Stop as if asked to once parent_gone() returns, after GRACE at the latest."""

    def follow():
        parent_gone()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)

    end_at_ctrl_c()
    wake_with_parent()
    threading.Thread(target=follow, daemon=True).start()


def run_module(module, arguments):
    """Be `python -m module arguments`."""
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def wake_with_parent():
    """Have Linux continue this process, should it be stopped, when its parent dies."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGCONT)


def pass_on(process_ids, number):
    """Send a signal to processes, and continue those that are stopped."""
    for process_id in process_ids:
        for one in (number, getattr(signal, "SIGCONT", None)):
            try:
                os.kill(process_id, one or number)
            except (ProcessLookupError, PermissionError):
                break


def is_stopped(process_id):
    """Whether a child is stopped, as by SIGSTOP or a debugger."""
    if not hasattr(os, "waitid"):
        return False
    try:
        flags = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, process_id, flags) is not None
    except ChildProcessError:
        return False


def launch(ranks, module, arguments):
    """Run `python -m module arguments` as `ranks` joined processes; return the exit status."""
    context = multiprocessing.get_context("spawn")
    processes, asked = [], []

    def ask(number, frame):
        asked.append(number)
        pass_on([process.pid for process in processes if process.is_alive()], number)

    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # by nohup
            signal.signal(number, ask)
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
        say(f"error: {ranks} processes cannot be started here: {error or 'not enough memory'}")
        return 2
    for number in asked:  # while some had not begun
        ask(number, None)
    for end in itertools.chain.from_iterable(own.values() for own in ends):
        end.close()  # or a rank would not notice that another is gone
    return wait(processes)


def run_rank(rank, ranks, ends, spokesman, module, arguments):
    """One process of the group: join it, then be `python -m module arguments`."""
    with contextlib.suppress(AttributeError):  # Windows
        os.setsid()  # Ctrl-C reaches the launcher alone, which passes it on once
    begin(lambda: connection.wait([multiprocessing.parent_process().sentinel]))
    try:
        from train.run import group as process_group

        if ranks > 1:
            process_group.join(process_group.PipeGroup(rank, ranks, ends))
        run_module(module, arguments)
    # A command reports its own errors: these are of imports.
    except (ImportError, OSError, MemoryError) as error:
        if spokesman.acquire(block=False):  # it will be the same for all
            reason = str(error) or "not enough memory"
            say(f"error: rank {rank} of {ranks} cannot be started: {reason.splitlines()[0]}")
        raise SystemExit(2) from None


def wait(processes):
    """The exit status of the first rank that fails, or 0. The others do not outlive it for long."""
    status, late = 0, False
    running = {process.sentinel: process for process in processes}
    while running:
        ended = connection.wait(running, GRACE if status else STILL)
        if not ended and status:
            late = True
            for process in running.values():
                process.kill()
        elif not ended:
            tell_stopped(processes)
        for sentinel in ended:
            process = running.pop(sentinel)
            process.join()
            code = process.exitcode
            if code < 0 and not late and not status:
                rank, name = processes.index(process), signal.Signals(-code).name
                say(f"error: rank {rank} was ended by {name}, and the run with it")
                status = 128 - code
            status = status or code
    return status


def tell_stopped(processes):
    for rank, process in enumerate(processes):
        if is_stopped(process.pid):
            say(f"note: rank {rank} is stopped, and the others wait: kill -CONT {process.pid}")


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
