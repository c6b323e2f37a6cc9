"""Prediction: standard input answered as it arrives."""

import itertools
import sys

from data.reading.rows import MAX_LINE_BYTES, read_lines
from minisum.errors import UserError
from train.run.options import from_run
from train.run.report import emit

CHUNK = 1 << 16
MAX_LINE = 1 << 24  # bytes
STANDARD_INPUT = "standard input"


def answer_lines(classify, batch_size):
    """Print label, tab, probability for every line of standard input.

    classify(texts) gives (label, probability) pairs. A batch is what has arrived, up to
    `batch_size` lines, so a slow writer is answered at once and a fast one in full batches.
    """
    require_streams("type a text and press Enter")
    sys.stdout.reconfigure(encoding="utf-8")
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


def rows_of_standard_input():
    """The rows (dicts) of standard input as they arrive; UserError names the damaged line.

    They are csv, tsv or JSON lines: the first line shows which.
    """
    require_streams("reading rows from the terminal (csv or JSON lines)")
    lines = iter(lambda: sys.stdin.buffer.readline(MAX_LINE_BYTES + 1), b"")
    first = next(lines, b"")
    lines = itertools.chain([first] if first else [], lines)
    return read_lines(lines, row_format(first), STANDARD_INPUT)


def row_format(line):
    """The format that a first line (bytes) shows."""
    if line.lstrip(b"\xef\xbb\xbf \t").startswith(b"{"):
        return ".jsonl"
    return ".tsv" if b"\t" in line else ".csv"


def require_streams(prompt):
    """UserError without standard input and output; on a terminal, tell a person what to type."""
    if sys.stdin is None or sys.stdout is None:
        raise UserError("--predict needs standard input and standard output, and one is closed")
    if sys.stdin.isatty():
        emit(sys.stderr, f"note: {prompt}; Ctrl-D ends")


def one_model(config_class, task, path):
    """The config of the run in folder `path`. UserError if it compares several mixers."""
    config, _ = from_run(config_class, task, path, {})
    if config.mixer == "all":
        raise UserError(f"{path} compares several mixers: choose one of the folders in it")
    return config
