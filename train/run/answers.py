"""Predictions for the rows of a file: read by the run's own columns, the others kept.

An id or a true label then stands beside what is predicted for it. Standard input tells its format
by its first line; where that could be a text as well as a header, --format is asked for.
"""

import csv
import itertools
import json
import re
import sys

from data.reading.cells import read_text
from data.reading.columns import LABEL_NAMES, TEXT_NAMES, find_text_column
from data.reading.encodings import decoder_of
from data.reading.rows import MAX_LINE_BYTES, file_kind, read_lines, read_rows
from minisum.errors import UserError, visible
from train.run.report import emit

FORMATS = ("lines", "csv", "tsv", "jsonl")
CHUNK = 1 << 16
STANDARD_INPUT = "standard input"
# Columns that many tables have, and few texts begin with.
COMMON = {"id", "text", "label", *TEXT_NAMES, *LABEL_NAMES}


def add_flags(group, task):
    """Add --predict and what goes with it to a task's command."""
    add = group.add_argument
    add("--predict", metavar="DIR", help=task.predict_help)
    add("--format", choices=FORMATS, help="format that --predict reads, if it cannot be guessed")
    if "write" in task.predict_flags:
        add("--write", choices=("csv", "jsonl"), help="of the predictions (default: the input's)")
    if "top_k" in task.predict_flags:
        add("--top-k", type=int, metavar="K", help="how many classes to print, likeliest first")


def answer_texts(run, chosen):
    """Print the likeliest classes of each text, with their probabilities."""
    top = 1 if chosen["top_k"] is None else chosen["top_k"]
    if top < 1:
        raise UserError(f"--top-k {top}: at least 1 class")
    column = chosen["text_column"] or (run.spec.get("columns") or {}).get("text")

    def classify(texts):
        for row in run.predict_proba(texts):
            best = (-row).argsort(kind="stable")[:top]
            yield [(str(run.classes[i]), float(row[i])) for i in best]

    def answer(rows, start):
        texts = [text_of(row, name, where, start + i) for i, row in enumerate(rows)]
        for best in classify(texts):
            found = {"predicted": best[0][0], "probability": round(best[0][1], 6)}
            for place, (label, probability) in enumerate(best[1:], start=2):
                found[f"predicted_{place}"] = label
                found[f"probability_{place}"] = round(probability, 6)
            yield found

    kind, first = kind_of(chosen, column)
    written = any(chosen[name] is not None for name in ("data", "write", "encoding"))
    if kind == "lines" and not written:
        answer_lines(classify, run.batch_size, first)
        return
    rows, where = opened(chosen, kind, first)
    head = next(rows)
    name = "text" if kind == "lines" else column or find_text_column(list(head), where)
    dropped = None if kind == "lines" else name
    style = chosen["write"] or ("jsonl" if kind == "jsonl" else "csv")
    write_answers(itertools.chain([head], rows), answer, run.batch_size, dropped, style)


def text_of(row, column, where, number):
    """The text of a row; a missing one is a text without words."""
    place = f"{where}, row {number}"
    if column not in row:
        raise UserError(f"{place} has no column {column!r}: name the one with --text-column")
    return "" if row[column] is None else read_text(row[column], column, place)


def table_rows(chosen):
    """(rows, what errors call them) of --data FILE or standard input, which hold a table."""
    if chosen["format"] == "lines":
        raise UserError("--format lines: rows with the columns of the run are needed")
    kind, first = kind_of(chosen, table=True)
    return opened(chosen, kind, first)


def kind_of(chosen, column=None, table=False):
    """(format, the first line of standard input): as asked for, or as the name or the line tell.

    column: the name that the header of a table would have in it. table: lines of text are no
    choice.
    """
    if chosen["data"] is not None:
        kind = file_kind(chosen["data"])[0][1:] if chosen["format"] is None else chosen["format"]
        return "lines" if kind == "txt" and not chosen["separator"] else kind, b""
    require_streams("reading from the terminal" if table else "type a text and press Enter")
    if chosen["format"] or (sys.stdin.isatty() and not table):
        return chosen["format"] or "lines", b""
    first = sys.stdin.buffer.readline(MAX_LINE_BYTES + 1)
    if chosen["separator"]:
        return "csv", first
    try:
        text = decoder_of(chosen["encoding"], "replace").decode(first)
    except UnicodeError:  # a few replace nothing; who reads the rows names the line
        text = ""
    return guess(text, column, table), first


def guess(first, column, table=False):
    """The format that a first line shows. UserError if it could be two."""
    line = first.strip()
    tab = "tsv" if "\t" in line else "csv"
    if table:
        return "jsonl" if line.startswith("{") else tab
    if line.startswith("{") and json_object(line) is not None:
        if column in json_object(line):
            return "jsonl"
        tab = "jsonl"
    else:
        delimiter = "\t" if tab == "tsv" else ","
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
        if len(cells) > 1 and column in cells:
            return tab
        words = all(re.fullmatch(r"\w[\w .-]{0,40}", cell) for cell in cells)
        common = {cell.lower() for cell in cells} & (COMMON | {column})
        if not (words and common and (len(cells) > 1 or cells == [column])):
            return "lines"
    raise UserError(
        f"the first line of {STANDARD_INPUT} could be a text or the beginning of a table: say "
        f"which with --format lines or --format {tab}"
    )


def json_object(line):
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def opened(chosen, kind, first):
    """(rows, what errors call them). A line of text is a row with the column "text"."""
    suffix = ".txt" if kind == "lines" else f".{kind}"
    path, form = chosen["data"], {name: chosen[name] for name in ("separator", "encoding")}
    if path is None:
        lines = iter(lambda: sys.stdin.buffer.readline(MAX_LINE_BYTES + 1), b"")
        lines = itertools.chain([first] if first else [], lines)
        return read_lines(lines, suffix, STANDARD_INPUT, **form), STANDARD_INPUT
    if chosen["format"] is None:
        return read_rows(path, **form), path
    return read_lines(open(path, "rb"), suffix, path, **form), path  # noqa: SIM115 (read to its end)


def write_answers(rows, answer, batch_size, text_column, style=None):
    """Print each row's other columns and its answer, as csv or jsonl; without a style, the answer.

    answer(rows, number of the first) gives a dict for each of up to `batch_size` rows.
    """
    sys.stdout.reconfigure(encoding="utf-8", newline="")
    writer, start = None, 1
    while chunk := list(itertools.islice(rows, batch_size)):
        for row, found in zip(chunk, answer(chunk, start), strict=True):
            kept = {name: cell for name, cell in row.items() if name != text_column} | found
            if style == "jsonl":
                print(json.dumps(kept, ensure_ascii=False, default=str))
            elif style == "csv":
                if writer is None:
                    writer = csv.DictWriter(
                        sys.stdout, kept, extrasaction="ignore", lineterminator="\n"
                    )
                    writer.writeheader()
                writer.writerow(kept)
            else:
                print(*(f"{value:.6g}" for value in found.values()), sep="\t")
        sys.stdout.flush()
        start += len(chunk)


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
        if len(rest) > MAX_LINE_BYTES:
            raise UserError(f"a line of standard input is longer than {MAX_LINE_BYTES:,} bytes")
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
