"""The small mistakes that `tests.mutants` makes: what may stand in the place of an expression.

Each variant is one slip of the pen in a formula: a term or factor dropped, a sign turned, operands
of a product swapped, a transpose, sum or mask left out, a bound or a constant off by one, a wrong
name, a wrong order of results.
"""

import ast
from dataclasses import dataclass

OTHER_OPERATOR = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
TURNED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
OTHER_FUNCTION = {
    "sum": "mean", "mean": "sum", "cumsum": "reverse_cumsum", "reverse_cumsum": "cumsum",
    "minimum": "maximum", "maximum": "minimum", "zeros_like": "ones_like",
    "ones_like": "zeros_like", "zeros": "ones",
}  # fmt: skip
MODULES = {"xp", "np", "math"}
# What these say changes no number.
IDLE_KEYWORDS = {"copy", "strict", "kind"}


@dataclass(frozen=True)
class Mistake:
    """`new` in the place of parent.field, or of parent.field[index]."""

    parent: ast.AST
    field: str
    index: int | None
    new: object
    statement: ast.stmt

    def make(self):
        """Change the tree; returns what stood there."""
        if self.index is None:
            old = getattr(self.parent, self.field)
            setattr(self.parent, self.field, self.new)
        else:
            place = getattr(self.parent, self.field)
            old, place[self.index] = place[self.index], self.new
        return old

    def undo(self, old):
        Mistake(self.parent, self.field, self.index, old, self.statement).make()

    def site(self):
        """What stands at the place now."""
        value = getattr(self.parent, self.field)
        return value if self.index is None else value[self.index]


def mistakes(function, variables, statement=None):
    """Every Mistake in a function's (or lambda's) own code, not in the functions inside it.

    variables: names of arrays and numbers that can be read there. statement: where a lambda stands.
    """
    pending = [(function, statement)]
    while pending:
        node, statement = pending.pop()
        fields = [("body", node.body)] if node is function else ast.iter_fields(node)
        for field, value in fields:
            for index, child in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(child, ast.AST) or skipped(node, child):
                    continue
                inside = child if isinstance(child, ast.stmt) else statement
                place = index if isinstance(value, list) else None
                for new in variants(node, child, variables):
                    yield Mistake(node, field, place, new, inside)
                pending.append((child, inside))


def skipped(parent, node):
    """Functions inside, docstrings, the names of functions, and what changes no number.

    That are some keywords, and of which of the arrays the type or the module is asked for. And
    what goes another way on a GPU, where nobody can fork.
    """
    if isinstance(parent, ast.Call) and isinstance(node, ast.Name):
        return node is parent.func or name_of(parent) == "array_module"
    if isinstance(node, ast.If):
        return calls_kernels(node.test)
    if isinstance(node, ast.stmt) and not hasattr(node, "body"):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        return docstring or isinstance(node, ast.Raise) or calls_kernels(node)
    return (
        isinstance(node, (ast.FunctionDef, ast.Lambda, ast.JoinedStr))
        or (isinstance(node, ast.keyword) and node.arg in IDLE_KEYWORDS)
        or (isinstance(parent, ast.Attribute) and parent.attr == "dtype")
    )


def calls_kernels(node):
    return any(isinstance(n, ast.Name) and n.id == "kernels" for n in ast.walk(node))


def variants(parent, node, variables):
    """What may stand in the place of `node`."""
    if isinstance(node, ast.stmt):
        yield from of_statement(node)
    elif isinstance(node, (ast.BinOp, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.IfExp)):
        yield from of_operator(node)
    elif isinstance(node, ast.Call):
        yield from of_call(node)
    elif isinstance(node, ast.Slice):
        yield from of_slice(node)
    elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
        if isinstance(parent, ast.Return):
            yield from of_results(node)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield node.value
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield from (ast.Constant(node.value + step) for step in (1, -1))
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in variables:
        following = variables.index(node.id) + 1
        if len(variables) > 1:
            yield ast.Name(variables[following % len(variables)], ast.Load())


def of_statement(node):
    if isinstance(node, ast.AugAssign):
        yield ast.copy_location(ast.Assign([node.target], node.value), node)
        if type(node.op) in OTHER_OPERATOR:
            yield ast.AugAssign(node.target, OTHER_OPERATOR[type(node.op)](), node.value)
        yield ast.Pass()
    elif isinstance(node, ast.Assign):
        names, read = ({n.id for n in ast.walk(part) if isinstance(n, ast.Name)} for part in (
            ast.Tuple(node.targets), node.value))  # fmt: skip
        if names & read or any(isinstance(target, ast.Subscript) for target in node.targets):
            yield ast.Pass()
    elif isinstance(node, ast.Expr):
        yield ast.Pass()
    elif isinstance(node, ast.If):
        for value in (True, False):
            yield ast.If(ast.Constant(value), node.body, node.orelse)


def of_operator(node):
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.MatMult):
            yield ast.BinOp(node.right, node.op, node.left)
            return
        other = OTHER_OPERATOR.get(type(node.op))
        if other:
            yield ast.BinOp(node.left, other(), node.right)
        yield node.left
        if isinstance(node.op, ast.Sub):
            yield ast.UnaryOp(ast.USub(), node.right)
        elif not isinstance(node.op, (ast.Div, ast.Pow)):
            yield node.right
    elif isinstance(node, ast.Compare):
        for table in (OTHER_OPERATOR, TURNED):
            if type(node.ops[0]) in table:
                yield ast.Compare(node.left, [table[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield from node.values
    elif isinstance(node, ast.UnaryOp):
        if not isinstance(node.operand, ast.Constant):
            yield node.operand
    else:
        yield node.body
        yield node.orelse


def of_call(node):
    name, owner = name_of(node), getattr(node.func, "value", None)
    of_module = (isinstance(owner, ast.Call) and name_of(owner) == "array_module") or (
        isinstance(owner, ast.Name) and owner.id in MODULES
    )
    if name == "where":
        mask, chosen, other = node.args
        yield chosen
        yield other
        yield ast.Call(node.func, [mask, other, chosen], [])
    elif owner is not None and not of_module:
        yield owner
    elif node.args and not isinstance(node.args[0], (ast.Starred, ast.GeneratorExp)):
        yield node.args[0]
    if name == "matmul" and len(node.args) == 2:
        yield ast.Call(node.func, node.args[::-1], node.keywords)
    if name in OTHER_FUNCTION:
        other = OTHER_FUNCTION[name]
        if isinstance(node.func, ast.Name):
            yield ast.Call(ast.Name(other, ast.Load()), node.args, node.keywords)
        else:
            func = ast.Attribute(node.func.value, other, ast.Load())
            yield ast.Call(func, node.args, node.keywords)
    for keyword in node.keywords:
        if keyword.arg and keyword.arg not in IDLE_KEYWORDS:
            rest = [other for other in node.keywords if other is not keyword]
            yield ast.Call(node.func, node.args, rest)


def name_of(call):
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def of_slice(node):
    for end in ("lower", "upper", "step"):
        bound = getattr(node, end)
        parts = {"lower": node.lower, "upper": node.upper, "step": node.step}
        if bound is not None:
            yield ast.Slice(**parts | {end: None})
            if not isinstance(bound, (ast.Constant, ast.UnaryOp)):
                yield ast.Slice(**parts | {end: ast.BinOp(bound, ast.Add(), ast.Constant(1))})


def of_results(node):
    """A tuple that is returned: one of them missing, two of them swapped."""
    for i, one in enumerate(node.elts):
        if isinstance(one, ast.Starred) or isinstance(one, ast.Constant) and one.value is None:
            continue
        yield ast.Tuple([*node.elts[:i], ast.Constant(None), *node.elts[i + 1 :]], ast.Load())
        if i + 1 < len(node.elts):
            swapped = [*node.elts[:i], node.elts[i + 1], one, *node.elts[i + 2 :]]
            yield ast.Tuple(swapped, ast.Load())
