"""A trained model read back, and texts from standard input, one a line, answered as they arrive."""

import sys

import numpy as np

from minisum import checkpoint
from minisum.errors import UserError
from minisum.params import Params, flatten
from train.run.report import emit

CHUNK = 1 << 16
MAX_LINE = 1 << 24  # bytes


def answer_lines(classify, batch_size):
    """Print label, tab, probability for every line of standard input.

    classify(texts) gives (label, probability) pairs. A batch is what has arrived, up to
    `batch_size` lines, so a slow writer is answered at once and a fast one in whole batches.
    """
    if sys.stdin is None or sys.stdout is None:
        raise UserError("--predict needs standard input and standard output, and one is closed")
    sys.stdout.reconfigure(encoding="utf-8")
    if sys.stdin.isatty():
        emit(sys.stderr, "note: type a text and press Enter; Ctrl-D ends")
    for texts in arriving_texts(sys.stdin.buffer, batch_size):
        for label, probability in classify(texts):
            # A label with a line break or a tab in it stays one field of one line.
            print(" ".join(label.split()), f"{probability:.6f}", sep="\t")
        sys.stdout.flush()


def arriving_texts(stream, limit):
    """Yield lists of at most `limit` texts, without line ends. UserError names a line not UTF-8."""
    number = 0
    for lines in arriving_lines(stream):
        for start in range(0, len(lines), limit):
            texts = []
            for line in lines[start : start + limit]:
                number += 1
                texts.append(decode(line, number))
            yield texts


def arriving_lines(stream):
    """Yield lists of complete lines (bytes), each list what one read brought."""
    rest = bytearray()
    while chunk := stream.read1(CHUNK):
        rest += chunk
        if b"\n" in chunk:
            *lines, rest = rest.split(b"\n")
            yield lines
        if len(rest) > MAX_LINE:
            raise UserError(f"a line of standard input is longer than {MAX_LINE:,} bytes")
    if rest:
        yield [rest]


def decode(line, number):
    try:
        return line.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError:
        raise UserError(f"line {number} of standard input is not UTF-8 text") from None


def best_of(folder, task):
    """(arrays, card): the best epoch's parameters of a run of `task`, and what they belong to."""
    arrays, meta = checkpoint.load(folder.best)
    if not isinstance(meta, dict) or meta.get("task") != task or "card" not in meta:
        raise UserError(f"{folder.best} is not the trained model of a {task} run")
    folder.require_origin(meta)
    return arrays, meta["card"]


def matched(model, arrays, xp, folder):
    """Params of `arrays` for `model`. UserError if config.json describes a model unlike them."""
    initial = flatten(model.init(np.random.default_rng(0)))
    expected = {name: array.shape for name, array in initial.items()}
    if expected != {name: array.shape for name, array in arrays.items()}:
        raise UserError(f"the model in {folder} is not the one that its config.json describes")
    return Params.from_arrays(arrays, xp=xp)
