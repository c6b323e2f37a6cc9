"""Rooms without circles: no module needs, by any way round, a module that needs it."""

import ast
from pathlib import Path

import pytest

from train.__main__ import COMMANDS
from train.__main__ import main as list_commands

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("minisum", "data", "train")


def modules():
    """name -> path of every module of the project."""
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    parts = {path: path.relative_to(ROOT).with_suffix("").parts for path in paths}
    return {".".join(p[:-1] if p[-1] == "__init__" else p): path for path, p in parts.items()}


def imports(source, known):
    """Modules among `known` that a source imports anywhere, but for when it is the program."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not is_program(node)]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in known else node.module)
    return found & known.keys()


def is_program(node):
    """Whether a statement is `if __name__ == "__main__": ...`."""
    return isinstance(node, ast.If) and "'__main__'" in ast.dump(node.test)


def circle(needs):
    """Modules that lead round to the first, [] if there are none. needs: name -> names."""
    finished = set()

    def visit(name, path):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in finished:
            return []
        for other in sorted(needs[name]):
            if found := visit(other, [*path, name]):
                return found
        finished.add(name)
        return []

    return next(filter(None, (visit(name, []) for name in sorted(needs))), [])


def test_no_module_needs_itself():
    known = modules()
    assert {"minisum.backend", "train.loop", "minisum.text.batches"} <= known.keys()
    needs = {n: imports(p.read_text(encoding="utf-8"), known) for n, p in known.items()}
    assert not circle(needs), " -> ".join(circle(needs))


@pytest.mark.parametrize("room, above", [("minisum", ("data", "train")), ("data", ("train",))])
def test_no_room_needs_a_room_above_it(room, above):
    known = modules()
    for name, path in known.items():
        if name.partition(".")[0] == room:
            needed = imports(path.read_text(encoding="utf-8"), known)
            assert not {n for n in needed if n.partition(".")[0] in above}, name


def test_the_finder_finds_a_circle():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    known = {"train": 0, "train.loop": 0, "train.run": 0}
    lazily = "def f():\n    from train import loop\n    import train.run\n"
    assert imports(lazily, known) == {"train.loop", "train.run"}


def test_python_m_train_lists_every_command_in_one_line(capsys):
    others = {"train.__main__", "train.run.children"}  # the list, and what commands start
    programs = {
        name.removeprefix("train.").removesuffix(".__main__")
        for name, path in modules().items()
        if name.startswith("train.") and name not in others
        if any(map(is_program, ast.parse(path.read_text(encoding="utf-8")).body))
    }
    assert programs == set(COMMANDS)
    assert list_commands([]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    assert all(len(line.split()) > 3 and len(line) < 80 and "python" not in line for line in lines)


def test_a_command_asked_of_train_is_told_its_call(capsys):
    for asked, told in {
        "clasifier": "no command is called 'clasifier' (did you mean 'classifier'?)",
        "train.classifier": "run it as python -m train.classifier",
        "sorting": "no command is called 'sorting': python -m train lists them",
    }.items():
        assert list_commands([asked]) == 2
        assert capsys.readouterr().err == f"error: {told}\n"
