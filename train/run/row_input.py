"""Rows from standard input, as csv, tsv or JSON lines, told apart by the first line."""

import itertools
import sys

from data.reading.rows import MAX_LINE_BYTES, read_lines
from minisum.errors import UserError
from train.run.report import emit

NAME = "standard input"


def rows_of_standard_input():
    """The rows (dicts) of standard input as they arrive; UserError names the damaged line."""
    if sys.stdin is None or sys.stdout is None:
        raise UserError("--predict needs standard input and standard output, and one is closed")
    if sys.stdin.isatty():
        emit(sys.stderr, "note: reading rows from the terminal (csv or JSON lines); Ctrl-D ends")
    lines = iter(lambda: sys.stdin.buffer.readline(MAX_LINE_BYTES + 1), b"")
    first = next(lines, b"")
    return read_lines(itertools.chain([first] if first else [], lines), kind_of(first), NAME)


def kind_of(line):
    """The format that a first line (bytes) tells of."""
    if line.lstrip(b"\xef\xbb\xbf \t").startswith(b"{"):
        return ".jsonl"
    return ".tsv" if b"\t" in line else ".csv"
