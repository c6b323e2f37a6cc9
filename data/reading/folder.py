"""A folder of texts: its .txt files, also those in folders below, in the order of their names."""

from pathlib import Path

from data.reading.rows import read_rows
from minisum.errors import UserError

FEW = 20  # files: fewer are read as one running text, whose end is held out


def read_folder(path, encoding=None) -> list[str]:
    """The content of every text file under `path`; gzipped ones too. UserError without any."""
    files = sorted(file for file in Path(path).rglob("*") if is_text(file))
    if not files:
        raise UserError(f"{path} holds no .txt file")
    return [
        "\n".join(row["text"] for row in read_rows(file, encoding=encoding)) + "\n"
        for file in files
    ]


def is_text(file):
    named = file.name.lower().removesuffix(".gz").endswith(".txt")
    return named and file.is_file() and file.stat().st_size > 0
