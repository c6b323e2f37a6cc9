"""Prediction: standard input answered as it arrives."""

import itertools
import sys

from minisum.errors import UserError, visible
from train.run.report import emit

CHUNK = 1 << 16
MAX_LINE = 1 << 24  # bytes
STANDARD_INPUT = "standard input"


def answer_lines(classify, batch_size, first=b""):
    """Print label, tab, probability for every line of standard input, of which `first` is read.

    classify(texts) gives a list of (label, probability) for each text. A batch is what has
    arrived, up to `batch_size` lines, so a slow writer is answered at once.
    """
    sys.stdout.reconfigure(encoding="utf-8")
    for texts in arriving_texts(sys.stdin.buffer, batch_size, first):
        for best in classify(texts):
            # A label with a line break or a tab in it stays one field of one line.
            named = ((visible(" ".join(label.split())), p) for label, p in best)
            print(*(f"{label}\t{p:.6f}" for label, p in named), sep="\t")
        sys.stdout.flush()


def arriving_texts(stream, limit, first=b""):
    """Yield lists of at most `limit` texts, without line ends. UserError names a line not UTF-8."""
    before, numbers = [[first.removesuffix(b"\n")]] if first else [], itertools.count(1)
    for lines in itertools.chain(before, arriving_lines(stream)):
        for start in range(0, len(lines), limit):
            yield [decode(line, next(numbers)) for line in lines[start : start + limit]]


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


def require_streams(prompt):
    """UserError without standard input and output; on a terminal, tell a person what to type."""
    if sys.stdin is None or sys.stdout is None:
        raise UserError("--predict needs standard input and standard output, and one is closed")
    if sys.stdin.isatty():
        emit(sys.stderr, f"note: {prompt}; Ctrl-D ends")
