"""The commands, one a line: python -m train"""

import ast
import sys
from pathlib import Path

from minisum.errors import did_you_mean
from train.run.report import emit

COMMANDS = (
    "classifier", "causal", "multimodal", "forecast", "analyze", "page", "compare",
    "compare.recall", "icl", "transfer", "reproduce", "bench", "launch",
)  # fmt: skip


def about(name):
    """What a command does: its docstring's first line, up to how it is called."""
    path = Path(__file__).parent / name.replace(".", "/")
    source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
    return docstring.splitlines()[0].partition(": python -m")[0]


def main(arguments):
    """List the commands. To one that is asked for here, say how it is called: status 2."""
    asked = arguments[0].removeprefix("train.") if arguments else "--help"
    if asked in ("-h", "--help"):
        lines = [f"  {name:<16}{about(name)}" for name in COMMANDS]
        emit(sys.stdout, "\n".join(["python -m train.COMMAND --help explains a command:", *lines]))
        return 0
    if asked in COMMANDS:
        told = f"run it as python -m train.{asked}"
    else:
        near = did_you_mean(asked, COMMANDS) or ": python -m train lists them"
        told = f"no command is called {asked!r}{near}"
    emit(sys.stderr, f"error: {told}")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
