"""How text files are written: their encoding, and what stands between the cells of a table."""

import codecs
import itertools

from minisum.errors import UserError

NAMED = {"tab": "\t", "\\t": "\t"}
LIKELY = (";", "\t", "|", ",")


def separator_of(kind, separator) -> str | None:
    """The character between the cells of a file of `kind`, None for one that is no table of cells.

    separator: the user's, or None for that of the kind. UserError for what cannot be one.
    """
    if separator is None:
        return {".csv": ",", ".tsv": "\t"}.get(kind)
    found = NAMED.get(separator, separator)
    if kind not in (".csv", ".tsv", ".txt"):
        raise UserError(f"--separator is for tables of text, not for {kind}")
    if len(found) != 1 or found in '"\r\n':
        raise UserError(f"--separator {separator!r}: one character is needed, such as ; or tab")
    return found


def separator_in(cell) -> str:
    """What an only column's name suggests to do: ": it could be parted ...", or nothing."""
    near = next((one for one in LIKELY if one in cell), None)
    told = "tab" if near == "\t" else f"'{near}'"
    return f": is --separator {told} meant?" if near else ""


def decoded_lines(name, chunks, max_line, encoding=None):
    """Lines of text of chunks (bytes), each of which ends where a line may end.

    encoding: as Python names it; None is UTF-8, with or without a byte order mark. UserError names
    the line that is too long or of another encoding.
    """
    decoder = decoder_of(encoding)
    rest, number = "", 1
    for chunk in itertools.chain(chunks, [b""]):
        if max(len(chunk), len(rest)) > max_line:
            raise UserError(f"{name}, line {number}: longer than {max_line:,} bytes")
        try:
            *lines, rest = (rest + decoder.decode(chunk, final=not chunk)).split("\n")
        except UnicodeError as error:
            reason = getattr(error, "reason", error)
            hint = "; --encoding names another, such as cp1252" if encoding is None else ""
            told = (encoding or "UTF-8").upper()
            raise UserError(f"{name}, line {number}: not {told} ({reason}){hint}") from error
        number += len(lines)
        yield from (line + "\n" for line in lines)
    if rest:
        yield rest


def decoder_of(encoding, errors="strict"):
    """A decoder that takes a text in parts. UserError for an encoding that Python does not have."""
    try:
        "\n".encode(encoding or "utf-8", errors)  # refuses codecs that are not of texts
        name = codecs.lookup(encoding or "utf-8").name
        return codecs.getincrementaldecoder("utf-8-sig" if name == "utf-8" else name)(errors)
    except (LookupError, ValueError):
        raise UserError(
            f"--encoding {encoding!r}: no such encoding; utf-8, cp1252 and utf-16 are common"
        ) from None
