"""Stopping between two steps when asked to, with the state saved."""

import contextlib
import signal
import threading


class Interrupted(Exception):
    """The process was asked to end. `status` is the exit status by convention: 130 or 143."""

    def __init__(self, number):
        super().__init__(number)
        self.status = 128 + number

    def __str__(self):
        return signal.Signals(*self.args).name


@contextlib.contextmanager
def interruptible():
    """Yield received(): the number of the SIGINT or SIGTERM that has come since, or None.

    The handler only notes the signal, so that a step is done completely or not at all; the loop
    calls received() where it may stop. A second signal acts at once, as if there were no handler.
    """
    numbers = []

    def note(number, frame):
        numbers.append(number)
        signal.signal(number, before[number])

    def received():
        return numbers[0] if numbers else None

    if threading.current_thread() is not threading.main_thread():  # handlers cannot be set there
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
