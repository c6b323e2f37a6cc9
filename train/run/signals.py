"""Stopping when asked to: between two steps, with the state saved, or else at once."""

import contextlib
import signal
import sys
import threading

# What asks a process to end: Ctrl-C, `kill`, and a terminal or connection that has gone.
STOPPING = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]

_noted = None  # by the outermost interruptible(), while there is one
_swallowed = []  # SIGINTs whose KeyboardInterrupt may not have reached the command


class Interrupted(Exception):
    """The process was asked to end. `status` is the exit status by convention: 130, 143 or 129."""

    def __init__(self, number):
        super().__init__(number)
        self.status = 128 + number

    def __str__(self):
        return signal.Signals(*self.args).name


@contextlib.contextmanager
def interruptible():
    """Yield received(): the number of the first of STOPPING that has come since, or None.

    The handler only notes the signal, so that a step is done completely or not at all; the loop
    calls received() where it may stop. A second signal acts at once, as if there were no handler.
    Inside another interruptible() it is that one's: what comes between two of them is not lost.
    """
    global _noted
    if not is_main_thread() or _noted is not None:  # handlers cannot be set in other threads
        numbers = [] if _noted is None else _noted
        yield lambda: numbers[0] if numbers else None
        return
    numbers = _noted = []

    def note(number, frame):
        numbers.append(number)
        signal.signal(number, before[number])

    before = {number: signal.getsignal(number) for number in heeded()}
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: numbers[0] if numbers else None
    finally:
        _noted = None
        for number, handler in before.items():
            signal.signal(number, handler)


def heeded():
    """STOPPING without a SIGHUP that is ignored, as nohup has it."""
    return [n for n in STOPPING if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]


@contextlib.contextmanager
def keyboard_interrupts():
    """Ctrl-C raises KeyboardInterrupt in here, and `raise_swallowed` does so again.

    Python raises it wherever it is, be that a callback, where it would show it and forget it, or a
    library that catches everything.
    """
    before = signal.getsignal(signal.SIGINT) if is_main_thread() else None
    if before not in (signal.SIG_DFL, signal.default_int_handler):
        yield
        return
    _swallowed.clear()

    def interrupt(number, frame):
        _swallowed.append(number)
        raise KeyboardInterrupt

    def unraisable(about):
        if about.exc_type is not KeyboardInterrupt:
            show(about)

    show, sys.unraisablehook = sys.unraisablehook, unraisable
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = show


def raise_swallowed():
    """KeyboardInterrupt if there was one that nobody saw."""
    if _swallowed:
        _swallowed.clear()
        raise KeyboardInterrupt


def is_main_thread():
    return threading.current_thread() is threading.main_thread()
