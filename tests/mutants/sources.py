"""Where `tests.mutants` makes its mistakes: which functions of which files, one mutant each."""

import ast
import hashlib
import importlib
import inspect
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.mutants.mutations import MODULES, Mistake, mistakes

ROOT = Path(__file__).resolve().parents[2]
# Functions of this ending run on a GPU alone.
ON_A_GPU = "_on_gpu"


class Source:
    """One file of the package: its tree, its live module, its functions."""

    def __init__(self, path):
        self.path = path
        self.file = str(path.relative_to(ROOT))
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self.module = importlib.import_module(self.file[:-3].replace("/", "."))
        self.above = {
            child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)
        }

    def around(self, node):
        """The functions and classes that `node` stands in, from the inside out."""
        while (node := self.above.get(node)) is not None:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
                yield node

    def name(self, function):
        names = [getattr(f, "name", "lambda") for f in (function, *self.around(function))]
        return ".".join(reversed(names))

    def statement(self, node):
        while not isinstance(node, ast.stmt):
            node = self.above[node]
        return node

    def variables(self, function):
        """Names of arrays and numbers that can be read in `function`."""
        names = []
        for scope in (function, *self.around(function)):
            if isinstance(scope, ast.ClassDef):
                continue
            arguments = scope.args
            names += [a.arg for a in arguments.args + arguments.kwonlyargs]
            body = scope.body if isinstance(scope.body, list) else [scope.body]
            for node in (n for statement in body for n in ast.walk(statement)):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.append(node.id)
        wanted = (n for n in names if n not in MODULES | {"self"} and not n.startswith("back"))
        return list(dict.fromkeys(wanted))

    def outermost(self, function):
        """The function or method of the module in which `function` stands, perhaps itself."""
        return [f for f in (function, *self.around(function)) if isinstance(f, ast.FunctionDef)][-1]

    def exchange(self, function):
        """Compile the tree as it is now and give the live `function` the code that results."""
        code, live = compile(ast.fix_missing_locations(self.tree), self.file, "exec"), self.module
        outermost = self.outermost(function)
        owners = [c for c in self.around(outermost) if isinstance(c, ast.ClassDef)]
        for scope in (*reversed(owners), outermost):
            code = next(c for c in code.co_consts if getattr(c, "co_name", None) == scope.name)
            live = vars(live)[scope.name]
            live = inspect.unwrap(getattr(live, "fget", live))  # of a property, its function
        live.__code__ = code


def functions(sources, forward):
    """{function: its source} of the functions to make mistakes in.

    Those named back... and lambdas that are returned, and all functions of `sources` that they
    call; with `forward` all there are.
    """
    roots = [
        (node, source)
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef)
        and (forward or node.name.lstrip("_").startswith("back"))
        or isinstance(node, ast.Lambda) and isinstance(source.statement(node), ast.Return)
    ]  # fmt: skip
    modules = {source.module.__name__: source for source in sources}
    found = {}
    while roots:
        node, source = roots.pop()
        names = {f.name for f in (node, *source.around(node)) if isinstance(f, ast.FunctionDef)}
        if node in found or any(name.endswith(ON_A_GPU) for name in names):
            continue
        found[node] = source
        for read in ast.walk(node):
            if isinstance(read, ast.Name):
                roots += definitions(read.id, node, source, modules)
    return found


def definitions(name, function, source, modules):
    """The function called `name`, as seen from inside `function`: [] if it is none of ours."""
    for scope in (function, *source.around(function)):
        if isinstance(scope, ast.FunctionDef):
            inside = [n for n in scope.body if getattr(n, "name", None) == name]
            if inside:
                return [(inside[0], source)]
    live = getattr(source.module, name, None)
    home = modules.get(getattr(live, "__module__", None))
    if home is None:
        return []
    return [(n, home) for n in home.tree.body if isinstance(n, ast.FunctionDef) and n.name == name]


@dataclass(eq=False)
class Mutant:
    source: Source
    function: ast.AST
    mistake: Mistake
    before: str
    after: str
    number: int

    @property
    def key(self):
        again = f" ({self.number})" if self.number else ""
        name = self.source.name(self.function)
        return f"{self.source.file} {name}: {self.before} -> {self.after}{again}"

    @property
    def line(self):
        return self.mistake.statement.lineno

    @cached_property
    def digest(self):
        return digest(ast.unparse(self.source.outermost(self.function)))


def mutants(sources, forward):
    seen = Counter()
    for function, source in functions(sources, forward).items():
        variables = source.variables(function)
        for mistake in mistakes(function, variables, source.statement(function)):
            before, after = texts(source, mistake)
            if before == after:
                continue
            mutant = Mutant(source, function, mistake, before, after, 0)
            number = seen[mutant.key]
            seen[mutant.key] += 1
            yield Mutant(source, function, mistake, before, after, number)


def texts(source, mistake):
    """(before, after): the changed expression with enough around it to know it by."""
    shown, node = mistake.site, mistake.site()
    while not isinstance(node, ast.stmt) and (
        len(ast.unparse(node)) < 12
        or isinstance(source.above[node], ast.Subscript) and node is source.above[node].slice
    ):  # fmt: skip
        node = source.above[node]
        shown = lambda node=node: node  # noqa: E731
    before = ast.unparse(shown())
    old = mistake.make()
    after = ast.unparse(ast.fix_missing_locations(shown()))
    mistake.undo(old)
    if isinstance(node, ast.If):
        return before.partition("\n")[0], after.partition("\n")[0]
    return before, after


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]
