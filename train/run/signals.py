"""Leaving in good order when asked to."""

import contextlib
import signal
import threading


class Interrupted(Exception):
    """The process was asked to end. `status` is the exit status by convention: 130 or 143."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.number, self.status = number, 128 + number


@contextlib.contextmanager
def interruptible():
    """Yield a function that raises Interrupted if SIGINT or SIGTERM has come since.

    The handler only takes a note, so that a step is done wholly or not at all; the loop calls the
    function where it may stop. A second signal acts at once, as if there were no handler.
    """
    received = []

    def take_note(number, frame):
        received.append(number)
        signal.signal(number, before[number])

    def check():
        if received:
            raise Interrupted(received[0])

    if threading.current_thread() is not threading.main_thread():  # no handlers elsewhere
        yield check
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, take_note)
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
