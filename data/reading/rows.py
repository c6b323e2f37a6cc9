"""Rows of a data file, one dict each, whatever the format: csv, tsv, jsonl, parquet, txt.

Text formats are streamed line by line and may be gzipped (name ending in .gz). Damage of any
kind ends in a UserError that names the file and, where there is one, the line.
"""

import contextlib
import csv
import gzip
import json
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data.reading.encodings import decoded_lines, separator_in, separator_of
from minisum.errors import UserError, missing

MAX_LINE_BYTES = 64 << 20
MAX_BYTES = 8 << 30
MAX_RATIO = 200  # of what is unpacked to what was read; text comes to 30, a bomb to 1,000
UNSUSPECTED_BYTES = 16 << 20  # up to here any ratio will do
SUFFIXES = (".jsonl", ".parquet", ".csv", ".tsv", ".txt")


def read_rows(
    path, max_bytes=MAX_BYTES, max_line=MAX_LINE_BYTES, separator=None, encoding=None
) -> Iterator[dict]:
    """Rows of the file at `path`, in order, as dicts from column name to value.

    csv and tsv take their names from the header and give strings; jsonl gives the objects as
    parsed; txt gives {"text": line} without the line end, unless a `separator` makes it a table.
    Text is UTF-8, with or without a byte order mark, or in `encoding`. `max_bytes` bounds the
    decompressed size, `max_line` one line or field, and MAX_RATIO how far a file may blow up, so a
    small hostile one cannot fill the memory.

    Raises UserError at once for a missing file, a directory or an unknown suffix, and on reaching
    the damage for anything inside the file, an absence of rows included.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{path} is a directory, not a data file")
        if not path.exists():
            raise UserError(f"{path} does not exist")
        if not path.is_file():
            raise UserError(f"{path} is not a regular file")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    kind, compressed = file_kind(path)
    if kind == ".parquet":
        separator_of(kind, separator)
        rows = _parquet_rows(path, compressed, max_bytes)
    else:
        chunks = _chunks(path, compressed, max_bytes, lambda stream: stream.readline(max_line + 1))
        lines = decoded_lines(path, chunks, max_line, encoding)
        rows = _parsed(path, lines, kind, separator)
    return _not_empty(path, rows)


def read_lines(lines, kind, name, separator=None, encoding=None) -> Iterator[dict]:
    """Rows of lines (bytes, as they arrive) in `kind`, a text format of SUFFIXES.

    `name` stands for the file in the errors, which are those of read_rows.
    """
    lines = decoded_lines(name, _capped(name, lines, MAX_BYTES), MAX_LINE_BYTES, encoding)
    return _not_empty(name, _parsed(name, lines, kind, separator))


def file_kind(path) -> tuple[str, bool]:
    """(suffix out of SUFFIXES, whether gzipped) as told by the name. UserError if unknown."""
    name = Path(path).name.lower()
    compressed = name.endswith(".gz")
    kind = os.path.splitext(name.removesuffix(".gz"))[1]
    if kind not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise UserError(f"{path} has an unknown suffix; known are {known}, each also with .gz")
    return kind, compressed


def _not_empty(path, rows):
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path} has no rows")
    yield first
    yield from rows


def _chunks(path, compressed, max_bytes, read):
    """What `read(stream)` returns until it returns b"", under the caps on size and ratio."""
    try:
        with open(path, "rb") as file:
            stream = gzip.GzipFile(fileobj=file) if compressed else file
            chunks = iter(lambda: read(stream), b"")
            yield from _capped(path, chunks, max_bytes, file.tell if compressed else None)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is not a complete gzip file: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _capped(name, chunks, max_bytes, packed_bytes=None):
    """The chunks, until they are too much in all, or beside the packed bytes they came from."""
    total, looked_at = 0, UNSUSPECTED_BYTES
    for chunk in chunks:
        total += len(chunk)
        if total > max_bytes:
            raise UserError(f"{name} holds more than {max_bytes:,} bytes of data")
        if packed_bytes and total > looked_at:
            _refuse_bomb(name, total, packed_bytes())
            looked_at = total + (1 << 20)
        yield chunk


def _refuse_bomb(name, total, packed):
    if total > UNSUSPECTED_BYTES and total > MAX_RATIO * packed:
        raise UserError(
            f"{name} unpacks to more than {MAX_RATIO} times its size, as no real data does"
        )


def _parsed(name, lines, kind, separator):
    delimiter = separator_of(kind, separator)
    if delimiter is not None:
        return _csv_rows(name, lines, delimiter, guess=separator is None)
    return (_json_rows if kind == ".jsonl" else _text_rows)(name, lines)


def _text_rows(path, lines):
    for line in lines:
        yield {"text": line.removesuffix("\n").removesuffix("\r")}


def _json_rows(path, lines):
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error.msg})") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: JSON out of bounds ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: not a JSON object")
        yield row


def _csv_rows(path, lines, delimiter, guess):
    # The module keeps one limit for the whole process: it is raised, never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    # Strict, or a stray quote would silently swallow every row up to the next one.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = None
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                header = _header(path, cells)
                if guess and len(cells) == 1 and (hint := separator_in(cells[0])):
                    raise UserError(f"{path} has only the column {cells[0]!r:.80}{hint}")
            elif len(cells) != len(header):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(cells)} cell{'s' * (len(cells) != 1)} "
                    f"under a header of {len(header)} columns"
                )
            else:
                yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error


def _header(path, cells):
    names = [cell.strip() for cell in cells]
    if not all(names):
        raise UserError(f"{path}: the header lacks the name of column {names.index('') + 1}")
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(f"{path}: the header names column {name!r} twice")
    return names


def _parquet_rows(path, compressed, max_bytes):
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing(f"{path} needs pyarrow to be read", "pyarrow") from error
    try:
        with _unpacked(path, max_bytes) if compressed else open(path, "rb") as file:
            table = parquet.ParquetFile(file)
            footer = table.metadata
            # Of whole row groups: to look at a damaged column's description would end the process.
            sizes = [footer.row_group(i).total_byte_size for i in range(footer.num_row_groups)]
            if sum(sizes) > max_bytes:
                raise UserError(f"{path} holds more than {max_bytes:,} bytes of data")
            # A row may be as large as all that its group spells out, and a file of a kilobyte can
            # say the same megabyte a million times.
            batch_rows = max(16, min(1024, (1 << 26) // max([1, *sizes])))
            total, packed = 0, os.fstat(file.fileno()).st_size
            for batch in table.iter_batches(batch_size=batch_rows):
                total += sum(_plain(column).nbytes for column in batch.columns)
                _refuse_bomb(path, total, packed)
                yield from batch.to_pylist()
    except UserError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a readable parquet file: {reason}") from error


def _plain(column):
    """The Arrow array with every value spelled out, as Python will hold it."""
    return column.dictionary_decode() if hasattr(column, "dictionary_decode") else column


@contextlib.contextmanager
def _unpacked(path, max_bytes):
    """A temporary file with the decompressed contents: parquet is read from its end."""
    with tempfile.TemporaryFile() as file:
        for chunk in _chunks(path, True, max_bytes, lambda stream: stream.read(1 << 20)):
            file.write(chunk)
        file.seek(0)
        yield file
