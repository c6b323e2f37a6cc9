"""Rooms without circles: no module needs, by any way round, a module that needs it."""

import ast
from pathlib import Path

import pytest

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
