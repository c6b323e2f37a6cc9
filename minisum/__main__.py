"""python -m minisum: what is installed, and what runs where."""

import sys

import minisum
from minisum.errors import UserError

HERE = """minisum {version}, a library: in Python,

  import minisum
  run = minisum.load("runs/NAME")            a trained model: run.predict(["..."])
  clf = minisum.TextClassifier().fit(X, y)   train one in memory
  minisum.gradcheck(op, x)                   check a gradient

python -m minisum.ops shows the operations, python -m minisum.backend the machine. {training}"""
TRAINING = "python -m {command} runs inside a clone of the repository: change to its folder first."


def main(arguments):
    """Describe the library; a training command that is asked for here is told where it runs."""
    if arguments:
        command = arguments[0] if arguments[0].startswith("train.") else f"train.{arguments[0]}"
        raise UserError(TRAINING.format(command=command))
    training = TRAINING.format(command="train.TASK")
    print(HERE.format(version=minisum.__version__, training=training))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
