"""What a person reads who made a mistake: one style, a near name, one command to install."""

import ast
import re
from pathlib import Path

import pytest

from minisum import errors
from minisum.errors import UserError, did_you_mean, missing, require_known

ROOT = Path(__file__).parents[2]
NAMES = ("Cottention ", "RetNet ", "ListOps ")  # which may begin a sentence in the middle of a line


def text_of(node):
    """The text of an expression that makes one, each value in it as {}."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "{}"


def messages():
    for room in ("minisum", "train", "data"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError":
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    yield from ((place, text_of(part)) for part in node.args)


def test_every_error_is_a_sentence_after_a_colon():
    """It follows "error: ", so it begins with a small letter and has no full stop."""
    found = list(messages())
    assert len(found) > 150
    for place, text in found:
        assert not text.endswith("."), f"{place}: {text}"
        assert not re.match("[A-Z][a-z ]", text) or text.startswith(NAMES), f"{place}: {text}"


def test_a_near_name_is_offered_and_else_all_of_them():
    known = ["attention", "summation", 3]
    assert did_you_mean("atention", known) == " (did you mean 'attention'?)"
    assert did_you_mean("quantum", known) == did_you_mean(["attention"], known) == ""
    assert require_known("mixer", "attention", known) is None
    with pytest.raises(UserError, match=r"^mixer 'sumation' \(did you mean 'summation'\?\)$"):
        require_known("mixer", "sumation", known)
    with pytest.raises(UserError, match="^mixer 'quantum': choose one of attention, summation, 3$"):
        require_known("mixer", "quantum", known)


def test_one_command_installs_all_that_is_missing(monkeypatch):
    there = {"tokenizers"}
    monkeypatch.setattr(errors, "find_spec", lambda name: name in there or None)
    told = str(missing("the hub needs datasets", "datasets"))
    assert told == "the hub needs datasets: python -m pip install datasets safetensors"
    there.clear()
    told = str(missing("texts need tokenizers", "tokenizers"))
    assert told == "texts need tokenizers: python -m pip install tokenizers safetensors"
