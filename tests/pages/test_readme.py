"""The README's own words, run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from train import causal, classifier, forecast, multimodal
from train.command_line import build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
PROGRAMS = {f"train.{task.COMMAND.task}": task.COMMAND
            for task in (causal, classifier, forecast, multimodal)}  # fmt: skip


def blocks(language):
    return [text for kind, text in BLOCKS if kind == language]


@pytest.mark.parametrize("code", [b for b in blocks("python") if "import" in b])
def test_examples_run(code):
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert child.returncode == 0, child.stderr
    printed = child.stdout.splitlines()
    shown = blocks("text")[0].splitlines() if "print(" in code else []
    for line in shown:
        if line.strip() != "...":
            assert line in printed


def test_the_shown_relu_is_the_real_one():
    source = (ROOT / "minisum/ops/activations.py").read_text(encoding="utf-8")
    shown = next(b for b in blocks("python") if b.startswith("def relu"))
    without_docstring = re.sub(r'    """.*?"""\n', "", source, count=0, flags=re.DOTALL)
    assert shown.strip() in without_docstring


COMMANDS = [
    line.split("#")[0].rpartition("python -m ")[2].strip()
    for block in blocks("sh")
    for line in block.splitlines()
    if re.search(r"python -m (train)\.", line)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_only_flags_that_exist(command):
    module, *flags = shlex.split(command)
    flags = [flag for flag in flags if flag.startswith("--")]
    if module not in PROGRAMS:
        pytest.skip(f"{module} has a parser of its own")
    known = build_parser(PROGRAMS[module]).format_help()
    for flag in flags:
        assert re.search(rf"{flag}\b", known), f"{flag} is no flag of {module}"


def test_files_named_exist():
    for path in re.findall(r"\]\(([\w/.]+)\)", README):
        assert (ROOT / path).exists(), path


def test_the_test_command_is_found_by_ci():
    after = README.partition("<!-- test command -->\n```sh\n")[2].splitlines()
    assert after[0].endswith("-m pytest") and after[1] == "```"
