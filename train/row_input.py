"""Rows from standard input, as csv, tsv or JSON lines, told apart by the first line."""

import shutil
import sys
import tempfile
from pathlib import Path

from data.rows import MAX_LINE_BYTES, read_rows
from minisum.errors import UserError
from train.report import emit

NAME = "standard input"


def rows_of_standard_input():
    """Yield the rows (dicts) of all of standard input; UserError names the line that is damaged."""
    if sys.stdin is None or sys.stdout is None:
        raise UserError("--predict needs standard input and standard output, and one is closed")
    if sys.stdin.isatty():
        emit(sys.stderr, "note: reading rows from the terminal (csv or JSON lines); Ctrl-D ends")
    with tempfile.TemporaryDirectory() as folder:
        first = sys.stdin.buffer.readline(MAX_LINE_BYTES)
        path = Path(folder, "rows" + suffix_of(first))
        with open(path, "wb") as file:
            file.write(first)
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield from read_rows(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), NAME)) from None


def suffix_of(line):
    """The format that a first line (bytes) tells of."""
    if line.lstrip(b"\xef\xbb\xbf \t").startswith(b"{"):
        return ".jsonl"
    return ".tsv" if b"\t" in line else ".csv"
