"""Ctrl-C where nothing needs to be saved: KeyboardInterrupt, also where a library swallows it."""

import contextlib
import signal

from train.run.signals import is_main_thread

_swallowed = []  # SIGINTs whose KeyboardInterrupt may not have reached the command


@contextlib.contextmanager
def keyboard_interrupts():
    """Ctrl-C raises KeyboardInterrupt in here, and `raise_swallowed` does so again.

    Python raises it wherever it is, be that a callback or a library that catches everything.
    """
    before = signal.getsignal(signal.SIGINT) if is_main_thread() else None
    if before not in (signal.SIG_DFL, signal.default_int_handler):
        yield
        return
    _swallowed.clear()

    def interrupt(number, frame):
        _swallowed.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def raise_swallowed():
    """KeyboardInterrupt if there was one that nobody saw."""
    if _swallowed:
        _swallowed.clear()
        raise KeyboardInterrupt
