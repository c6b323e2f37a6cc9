"""The default table of text and numbers: the functions of the standard library.

What a docstring promises and how the signature looks, against how long the code became. Functions
are read from the source files that come with every Python, never by importing them.
"""

import ast
import math
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from data.generated.python_docs import SKIPPED
from data.reading.splits import text_key
from minisum.errors import UserError

MIN_WORDS = 3
TEST_FRACTION = 0.2
TEXT, TARGET = "docstring", "log_lines"
NUMBERS = (
    "parameters",  # with self, without *args and **kwargs
    "defaults",
    "keyword_only",
    "variadic",  # *args and **kwargs: 0, 1 or 2
    "annotations",
    "decorators",
    "is_method",
    "depth",  # classes and functions around it
)


def rows() -> Iterator[dict]:
    """{docstring, the NUMBERS, log_lines} of every documented function, in a fixed order.

    log_lines is the natural logarithm of the lines of its source without the docstring. A
    docstring of fewer than MIN_WORDS words, or one that was met before, is left out.
    """
    seen = set()
    for path in _source_files():
        for function, depth, in_class in _functions(path):
            text = ast.get_docstring(function) or ""
            key = text_key(text)
            if key.count(" ") + 1 < MIN_WORDS or key in seen:
                continue
            seen.add(key)
            # A docstring may spell half a surrogate pair, which no UTF-8 file can hold.
            text = text.encode("utf-8", "replace").decode()
            facts = (*_signature(function), len(function.decorator_list), int(in_class), depth)
            yield {
                TEXT: text,
                **dict(zip(NUMBERS, facts, strict=True)),
                TARGET: math.log(_lines(function)),
            }
    if not seen:
        raise UserError(
            "This Python comes without the source of its standard library, so the default data set "
            "cannot be made; name another."
        )


def _source_files():
    for folder, subfolders, files in os.walk(sysconfig.get_path("stdlib")):
        subfolders[:] = sorted(set(subfolders) - SKIPPED)
        yield from (Path(folder, file) for file in sorted(files) if file.endswith(".py"))


def _functions(path):
    """(function, classes and functions around it, whether a class is the nearest) in a file."""
    try:
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return
        with warnings.catch_warnings():
            # Some sources hold invalid escapes, which newer versions warn of.
            warnings.simplefilter("ignore")
            module = ast.parse(source)
    # Files of another Python version or with deliberate errors lie among the sources.
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    yield from _inside(module, 0)


def _inside(node, depth):
    for child in node.body:
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child, depth, isinstance(node, ast.ClassDef)
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _inside(child, depth + 1)


def _signature(function):
    """The first five of NUMBERS."""
    given = function.args
    variadic = [a for a in (given.vararg, given.kwarg) if a is not None]
    plain = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    annotated = sum(a.annotation is not None for a in [*plain, *variadic])
    defaults = len(given.defaults) + sum(d is not None for d in given.kw_defaults)
    return (
        len(plain),
        defaults,
        len(given.kwonlyargs),
        len(variadic),
        annotated + (function.returns is not None),
    )


def _lines(function):
    docstring = function.body[0]
    return (
        function.end_lineno - function.lineno + 1
        - (docstring.end_lineno - docstring.lineno + 1)
    )  # fmt: skip
