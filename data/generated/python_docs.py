"""The default corpus: the documentation inside the Python that runs this.

Every installation carries the source of its standard library, and with it some thousand
docstrings. They are read from the files, never by importing them. The classification task is to
tell which package a docstring belongs to.
"""

import ast
import os
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from minisum.errors import UserError
from minisum.text.splits import text_key

CLASSES = 20
MIN_WORDS = 5

# Neither third-party packages nor tests, and no data in the guise of source.
SKIPPED = {
    "site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "pydoc_data",
    "ensurepip", "__pycache__",
}  # fmt: skip


def rows() -> list[dict]:
    """{text, label}: the docstrings of the CLASSES best documented packages, and which it is.

    A text of fewer than MIN_WORDS words is left out. One counts once however often it occurs; one
    that occurs in several packages belongs to none.
    """
    owners, texts = {}, {}
    for path, tree in parsed_sources():
        # A pure Python twin (_pydecimal) counts as what it stands for.
        owner = path.parts[0].removesuffix(".py").removeprefix("_py").lstrip("_")
        for text in _docstrings(tree):
            key = text_key(text)
            if key.count(" ") + 1 >= MIN_WORDS:
                owners.setdefault(key, set()).add(owner)
                texts.setdefault(key, text)
    own = {key: min(found) for key, found in owners.items() if len(found) == 1}
    sizes = Counter(own.values())
    best = sorted(sizes, key=lambda name: (-sizes[name], name))[:CLASSES]
    return [{"text": texts[key], "label": name} for key, name in own.items() if name in best]


def documents() -> list[dict]:
    """{name, text} of longer documents, for language models.

    One for every topic of the language reference that the interactive help carries, and one for
    every source file: its docstrings in order, apart by a blank line, each text once.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UserError("this Python comes without the topics of its interactive help") from error
    found = [{"name": f"topics/{name}", "text": topics[name].strip()} for name in sorted(topics)]
    seen = set()
    for path, tree in parsed_sources():
        fresh = []
        for text in _docstrings(tree):
            key = text_key(text)
            if key not in seen:
                seen.add(key)
                fresh.append(text)
        if fresh:
            found.append({"name": path.as_posix(), "text": "\n\n".join(fresh)})
    return found


def parsed_sources() -> Iterator[tuple[Path, ast.Module]]:
    """(path below the library, syntax tree) of every source file with long strings, sorted.

    Raises UserError if there is none.
    """
    root = Path(sysconfig.get_path("stdlib"))
    empty = True
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(set(subfolders) - SKIPPED)
        for file in sorted(files):
            path = Path(folder, file)
            tree = _parsed(path) if file.endswith(".py") else None
            if tree is not None:
                empty = False
                yield path.relative_to(root), tree
    if empty:
        raise UserError(
            f"this Python comes without the source of its standard library (none in {root}), "
            f"so the default data set cannot be made: name another"
        )


def _parsed(path):
    try:
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return None
        with warnings.catch_warnings():
            # Some sources hold invalid escapes, which newer versions warn of.
            warnings.simplefilter("ignore")
            return ast.parse(source)
    # Files of another Python version or with deliberate errors lie among the sources.
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def writable(text):
    """The text without halves of surrogate pairs, which no UTF-8 file can hold."""
    return text.encode("utf-8", "replace").decode()


def _docstrings(node) -> Iterator[str]:
    """The docstrings of a module, class or function and of what it defines, in order."""
    text = ast.get_docstring(node)
    if text and text.strip():
        yield writable(text)
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _docstrings(child)
