"""What the pages say, run: every README of the project."""

import argparse
import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
import warnings

import pytest

from minisum import mixers
from tests.pages.tables import ROOT, TABLE, figures, pages, read

NAMES = [path.relative_to(ROOT).as_posix() for path in pages()]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}


def blocks(text, *languages):
    return [
        code
        for kind, code in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
        if kind in languages
    ]


def examples():
    """(code, the text block right below it or "") of each example that imports what it needs."""
    found = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)
    for name, text in TEXTS.items():
        for code, printed in found.findall(text):
            if re.search(r"^(import|from) ", code, re.MULTILINE):
                yield pytest.param(code, printed, id=f"{name}: {code.splitlines()[-1]}")


@pytest.mark.parametrize(("code", "printed"), list(examples()))
def test_examples_run_and_print_what_is_shown(code, printed, tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    lines = child.stdout.splitlines()
    for shown in printed.splitlines():
        assert shown.strip() == "..." or any(alike(shown, line) for line in lines), shown


def alike(one, other):
    """Whether two lines are the same but for the last digits of their numbers."""
    number = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
    values = [[float(found) for found in re.findall(number, line)] for line in (one, other)]
    return re.sub(number, "0", one) == re.sub(number, "0", other) and values[0] == pytest.approx(
        values[1], rel=1e-9
    )


def test_the_shown_relu_is_the_real_one():
    source = (ROOT / "minisum/ops/activations.py").read_text(encoding="utf-8")
    shown = next(
        b for b in blocks(TEXTS["minisum/README.md"], "python") if b.startswith("def relu")
    )
    assert shown.strip() in re.sub(r'    """.*?"""\n', "", source, flags=re.DOTALL)


def commands():
    """(where, words after "python") of every Python command in a page or a measurement."""
    lines = []
    for name, text in TEXTS.items():
        shown = [line for block in blocks(text, "sh") for line in block.splitlines()]
        inline = re.findall(r"`([^`\n]*python [^`\n]+)`", TABLE.sub("", text))
        lines += [(name, line) for line in shown + inline]
    for path in figures():
        lines += [(path.name, line) for line in read(path).get("command", ())]
    for where, line in lines:
        words = shlex.split(line.partition("<")[0], comments=True)
        starts = [i for i, word in enumerate(words) if re.search(r"(^|/)python$", word)]
        if starts:
            yield where, words[starts[-1] + 1 :]


COMMANDS = {" ".join(words): (where, words) for where, words in commands()}


class Parsed(BaseException):
    """The command line was understood. No exception that a command answers for."""


def parse(module, arguments, monkeypatch):
    """What `python -m module arguments` reads from its command line, run no further."""
    real = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(self, args=None, namespace=None):
        given, unknown = real(self, args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {unknown}")
        raise Parsed(given)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with warnings.catch_warnings(), pytest.raises(Parsed) as stopped:
        warnings.simplefilter("ignore", RuntimeWarning)  # the module has been imported before
        runpy.run_module(module, run_name="__main__")
    return stopped.value.args[0]


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, id=f"{where}: {text}") for text, (where, words) in COMMANDS.items()],
)
def test_commands_are_understood(words, monkeypatch):
    """train.* by its own parser; of others the module, the script and the tests must exist.

    A module that is named alone is not a whole command line. The page on mixers trains with one
    that is not in the table.
    """
    if words[0] != "-m":
        assert (ROOT / words[0]).is_file(), words[0]
        return
    _, module, *arguments = (word.replace("moving_average", "running_mean") for word in words)
    assert importlib.util.find_spec(module), f"there is no module {module}"
    if module == "pytest":
        for path in (word.partition("::")[0] for word in arguments if word.startswith("tests")):
            assert (ROOT / path).exists(), path
    if module.startswith("train.") and arguments:
        given = parse(module, arguments, monkeypatch)
        if module == "train.launch":
            monkeypatch.undo()
            parse(given.module, given.arguments, monkeypatch)


@pytest.mark.parametrize("flags", [["--epochs", "few"], ["--no-such-flag"]])
def test_a_command_that_is_not_understood_is_noticed(flags, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("train.classifier", flags, monkeypatch)
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("name", NAMES)
def test_links_resolve(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if not target.startswith("http"):
            assert ((ROOT / name).parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("name", NAMES)
def test_files_named_exist(name):
    """`minisum/...`, `tests/...` and so on; minisum/mixers/README.md adds a file of its own."""
    for path in re.findall(r"`((?:minisum|train|data|tests)/[\w./-]*)`", TEXTS[name]):
        assert (ROOT / path).exists() or path == "minisum/mixers/moving_average.py", path


def test_every_mixer_is_listed_once():
    families = TEXTS["minisum/README.md"].partition("| family |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`(\w+)`", families)) == sorted(mixers.TABLE)


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].encode()) <= 10_000


def test_every_room_has_its_page():
    rooms = {
        "minisum",
        "minisum/mixers",
        "train",
        "train/bench",
        "train/compare",
        "train/icl",
        "train/reproduce",
        "data",
        "tests",
    }
    assert {f"{room}/README.md" for room in rooms} <= set(NAMES)


def test_the_test_command_is_found_by_ci():
    after = TEXTS["README.md"].partition("<!-- test command -->\n```sh\n")[2].splitlines()
    assert after[0].endswith("-m pytest") and after[1] == "```"
