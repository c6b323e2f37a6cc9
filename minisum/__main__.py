"""python -m minisum: what is installed, and what runs where."""

import sys

import minisum
from minisum.errors import UserError

HERE = """minisum {version}, a library: in Python,

  import minisum
  run = minisum.load("runs/NAME")           # a trained model: run.predict(["..."])
  clf = minisum.TextClassifier().fit(X, y)  # train one in memory
  minisum.gradcheck(op, x)                  # check a gradient

On the command line:

  python -m minisum.ops      the operations, each with its gradient checked
  python -m minisum.backend  what this machine has
  python -m train            the training commands, inside a clone of the repository"""


def main(arguments):
    """Describe the library; a training command that is asked for here is told where it runs."""
    if arguments and arguments[0] not in ("-h", "--help"):
        command = arguments[0] if arguments[0].startswith("train.") else f"train.{arguments[0]}"
        where = "runs inside a clone of the repository: change to its folder first"
        raise UserError(f"python -m {command} {where}")
    print(HERE.format(version=minisum.__version__))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
