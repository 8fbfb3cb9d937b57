"""Mutants of a source: copies in which one operator, sign, constant or function is another one.

Each is such a mistake as a hand makes. Leaves out: what a mutant breaks (its user runs it), and
whether it is equivalent; annotations, which compute nothing; and `strict=` of zip, which only
says that lengths are known to be equal.
"""

import ast
import copy
from collections.abc import Iterator

_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
}
_FUNCTIONS = (
    ("max", "min"),
    ("amax", "amin"),
    ("argmax", "argmin"),
    ("maximum", "minimum"),
    ("sum", "mean"),
    ("cumsum", "cumprod"),
    ("exp", "expm1"),
    ("log", "log1p"),
    ("cos", "sin"),
    ("sqrt", "rsqrt"),
    ("square", "abs"),
    ("tril", "triu"),
    ("floor", "ceil"),
)
_OTHER = dict(_FUNCTIONS) | {second: first for first, second in _FUNCTIONS}


def mutants(source: str) -> Iterator[tuple[str, ast.Module]]:
    """Each mutant, with what it changes: 'line 7: Add becomes Sub'."""
    tree = ast.parse(source)
    silent = {id(node) for unfelt in _unfelt(tree) for node in ast.walk(unfelt)}
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in silent:
            continue
        for change, attribute, value in _changes(node):
            mutant = copy.deepcopy(tree)
            twin = next(it for index, it in enumerate(ast.walk(mutant)) if index == place)
            if isinstance(twin, ast.Compare):
                value = [value, *twin.ops[1:]]
            setattr(twin, attribute, value)
            line = getattr(node, "lineno", 0)
            yield f"line {line}: {change}", ast.fix_missing_locations(mutant)


def _unfelt(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "strict":
            yield node.value
        for name in ("annotation", "returns"):
            if (found := getattr(node, name, None)) is not None:
                yield found


def _changes(node: ast.AST) -> Iterator[tuple[str, str, object]]:
    """What can be changed in a node: in words, the attribute, and its new value."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        for other in _OPERATORS.get(type(node.op), ()):
            yield f"{type(node.op).__name__} becomes {other.__name__}", "op", other()
    elif isinstance(node, ast.Compare):
        for other in _OPERATORS.get(type(node.ops[0]), ()):
            yield f"{type(node.ops[0]).__name__} becomes {other.__name__}", "ops", other()
    elif isinstance(node, ast.UnaryOp) and not _is_axis(node):
        lost = ast.Not() if isinstance(node.op, ast.Invert) else ast.UAdd()
        if not isinstance(node.op, ast.Not):
            yield f"{type(node.op).__name__} is lost", "op", lost
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} becomes {not node.value}", "value", not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield f"{node.value} becomes one more", "value", node.value + 1
        if node.value > 0:
            yield f"{node.value} becomes one less", "value", node.value - 1
    elif isinstance(node, ast.Attribute) and node.attr in _OTHER:
        yield f"{node.attr} becomes {_OTHER[node.attr]}", "attr", _OTHER[node.attr]


def _is_axis(node: ast.UnaryOp) -> bool:
    """Whether it is -1 or -2: from the other end it is the same axis of a tensor of known rank."""
    return isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int)
