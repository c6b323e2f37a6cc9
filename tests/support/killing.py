"""Commands in processes that can be killed: forked, with their modules loaded, from a clean one."""

import multiprocessing
import os
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout

MODULES = [
    "train.classifier", "train.causal", "train.multimodal", "train.forecast", "train.icl.__main__",
    "train.compare.__main__", "train.analyze.__main__", "train.page.__main__", "safetensors.numpy",
    "tokenizers",
]  # fmt: skip


def start(command, errors, environment):
    """Begin `python -m command`; what it says on standard error goes to the file `errors`."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(MODULES)
    words = [str(word) for word in command]
    process = server.Process(target=run, args=(words, str(errors), environment))
    process.start()
    return process


def run(command, errors, environment):
    os.environ.update(environment)
    sys.modules["matplotlib"] = None  # pictures take most of a small run's time
    for name in (command[0], f"{command[0]}.__main__"):  # or runpy would warn of it
        sys.modules.pop(name, None)
    sys.argv = command
    with (
        open(errors, "w") as said,
        open(os.devnull, "w") as nowhere,
        redirect_stderr(said),
        redirect_stdout(nowhere),
    ):
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
