"""The default table of text and numbers: the functions of the standard library.

What a docstring promises and how the signature looks, against how long the code became. Functions
are read from the source files that come with every Python, never by importing them.
"""

import ast
import math
from collections.abc import Iterator

from data.generated.python_docs import parsed_sources, writable
from minisum.text.splits import text_key

MIN_WORDS = 3
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
    for _, tree in parsed_sources():
        for function, depth, in_class in _functions(tree):
            text = ast.get_docstring(function) or ""
            key = text_key(text)
            if key.count(" ") + 1 < MIN_WORDS or key in seen:
                continue
            seen.add(key)
            numbers = (*_signature(function), len(function.decorator_list), int(in_class), depth)
            whole, docstring = (n.end_lineno - n.lineno for n in (function, function.body[0]))
            yield {
                TEXT: writable(text),
                **dict(zip(NUMBERS, numbers, strict=True)),
                TARGET: math.log(whole - docstring),
            }


def _functions(node, depth=0):
    """(function, classes and functions around it, whether a class is the nearest) below `node`."""
    for child in node.body:
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child, depth, isinstance(node, ast.ClassDef)
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _functions(child, depth + 1)


def _signature(function):
    """The first five of NUMBERS."""
    given = function.args
    variadic = [a for a in (given.vararg, given.kwarg) if a is not None]
    plain = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    defaults = len(given.defaults) + sum(d is not None for d in given.kw_defaults)
    annotated = sum(a.annotation is not None for a in [*plain, *variadic])
    annotations = annotated + (function.returns is not None)
    return len(plain), defaults, len(given.kwonlyargs), len(variadic), annotations
