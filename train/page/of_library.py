"""The laboratory: a folder with one page, and Pyodide beside it unless that has an address."""

import base64
import html
import io
import json
import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import minisum
from minisum.checkpoint import write_bytes
from minisum.errors import UserError
from minisum.files import make_folder
from minisum.tiny.classifier import docstrings
from train.page import laboratory
from train.page.of_run import part

ROOT = Path(minisum.__file__).parents[1]
PARTS = ("minisum/**/*.py", "train/__init__.py", "train/run/__init__.py", "train/run/curves.py",
         "train/page/__init__.py", "train/page/laboratory.py")  # fmt: skip
PYODIDE = ("pyodide.js", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip")
LOCK = "pyodide-lock.json"
CLASSES, TEXTS, LETTERS = 6, 200, 160  # of the texts that come with the page


def write_laboratory(out, pyodide):
    """Write index.html, and what of Pyodide it needs; returns how to open it, in a sentence.

    pyodide: a folder with a release of Pyodide and its wheel of NumPy, or the URL of one.
    """
    out, served = Path(out), re.match("https?://", pyodide)
    if not served:
        needed = pyodide_files(Path(pyodide))
        make_folder(out / "pyodide")
        for path in needed:
            shutil.copyfile(path, out / "pyodide" / path.name)
    else:
        make_folder(out)
    address = pyodide.rstrip("/") if served else "pyodide"
    write_bytes(out / "index.html", page_of_library(address).encode())
    if served:
        return f"{out / 'index.html'}: open it in a browser; it reads Python from {address}"
    return f"{out}: python -m http.server --directory {out}, then open http://localhost:8000"


def pyodide_files(folder):
    """The files of Pyodide that the page reads. UserError for the ones that are missing."""
    names = [*PYODIDE, LOCK]
    if (folder / LOCK).is_file():
        lock = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        names.append(lock["packages"]["numpy"]["file_name"])
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"--pyodide {folder} is no release of Pyodide: {missing[0]} is missing")
    return [folder / name for name in names]


def page_of_library(address):
    """The page as a string; address: where it finds Pyodide."""
    return part("laboratory.html").substitute(
        address=html.escape(address),
        style=part("style.css").template,
        decision=part("decision.html").template,
        texts=html.escape(texts()),
        examples=json.dumps(laboratory.EXAMPLES).replace("<", "\\u003c"),
        library=base64.b64encode(library()).decode(),
        script=part("decision.js").template + part("laboratory.js").template,
    )


def library():
    """A zip of the library and of the page's Python, the same bytes every time."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(path for pattern in PARTS for path in ROOT.glob(pattern)):
            name = zipfile.ZipInfo(path.relative_to(ROOT).as_posix())
            archive.writestr(name, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def texts():
    """Lines of a label, a tab and a text: beginnings of the docstrings of some packages."""
    found = {}
    for package, text in docstrings():
        text = " ".join(text.split())
        if len(text) >= LETTERS // 2:
            found.setdefault(text[:LETTERS], package)
    chosen = [package for package, _ in Counter(found.values()).most_common(CLASSES)]
    lines = []
    for package in sorted(chosen):
        own = [text for text, owner in found.items() if owner == package]
        lines += [f"{package}\t{text}" for text in own[:: max(1, len(own) // TEXTS)][:TEXTS]]
    return "\n".join(lines)
