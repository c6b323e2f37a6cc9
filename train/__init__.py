"""Training from the command line: one runnable module a task, one loop (`train.loop`) for all."""

import signal
import sys


def end_at_ctrl_c():
    """Let Ctrl-C end the process as it does a program in C, until the command has begun.

    While modules are imported there is nothing to save, and KeyboardInterrupt can be lost: Python
    raises it in callbacks too, whose errors are printed and forgotten.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if sys.argv[:1] == ["-m"]:  # as Python has it while it looks for the module to run
    end_at_ctrl_c()
