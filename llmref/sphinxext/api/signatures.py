"""Signatures as Sphinx draws them, from the syntax tree: types and defaults stand as typed.

Leaves out: links from types, since most of them are torch's.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

from llmref.sphinxext.api.entries import Entry

# A longer signature has a line for each parameter: by the style sheet, since Sphinx would make a
# list of definitions without terms, which is no HTML.
_LINE = 76


@dataclass(frozen=True)
class Parameter:
    """A parameter; `*` and `/` stand for themselves, without type and default."""

    name: str
    type: str = ""
    default: str = ""

    def __str__(self) -> str:
        typed = f"{self.name}: {self.type}" if self.type else self.name
        equals = " = " if self.type else "="
        return typed + (equals + self.default if self.default else "")


def signature(entry: Entry) -> addnodes.desc_signature:
    """Return the signature of an entry, which is what a link to its name leads to."""
    node = addnodes.desc_signature("", "", ids=[entry.name], classes=["py"])
    node["module"], node["fullname"] = entry.name.rpartition(".")[0], entry.name
    short = entry.name.rpartition(".")[2]
    if entry.kind not in ("function", "method", "data"):
        node += addnodes.desc_annotation("", entry.kind, addnodes.desc_sig_space())
    node += addnodes.desc_name(short, short)
    if entry.kind in ("data", "property"):
        node += _after_name(entry)
        return node
    given = parameters(entry)
    result = returned(entry)
    length = len(short + ", ".join(map(str, given)) + result)
    if length > _LINE:
        node["classes"].append("api-lines")
    node += addnodes.desc_parameterlist("", "", *map(_drawn, given))
    if result:
        node += addnodes.desc_returns("", result)
    return node


def parameters(entry: Entry) -> list[Parameter]:
    """Return the parameters of a function, or of what makes an instance of a class."""
    node, path = entry.definition.node, entry.definition.path
    if isinstance(node, ast.FunctionDef):
        static = entry.kind in ("function", "staticmethod")
        return list(_of_function(node, path))[0 if static else 1 :]
    if not isinstance(node, ast.ClassDef):
        return []
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return list(_of_function(inner, path))[1:]
    fields = [inner for inner in node.body if isinstance(inner, ast.AnnAssign)]
    return [
        Parameter(ast.unparse(f.target), _typed(f.annotation, path), _typed(f.value, path))
        for f in fields
    ]


def returned(entry: Entry) -> str:
    """Return the type that a function returns, as typed; '' for a class."""
    return _typed(getattr(entry.definition.node, "returns", None), entry.definition.path)


def _of_function(node: ast.FunctionDef, path: Path) -> Iterator[Parameter]:
    args = node.args
    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    for index, (arg, default) in enumerate(zip(plain, defaults, strict=True), start=1):
        yield Parameter(arg.arg, _typed(arg.annotation, path), _typed(default, path))
        if index == len(args.posonlyargs):
            yield Parameter("/")
    if args.vararg:
        yield Parameter(f"*{args.vararg.arg}", _typed(args.vararg.annotation, path))
    elif args.kwonlyargs:
        yield Parameter("*")
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield Parameter(arg.arg, _typed(arg.annotation, path), _typed(default, path))
    if args.kwarg:
        yield Parameter(f"**{args.kwarg.arg}", _typed(args.kwarg.annotation, path))


def _typed(node: ast.expr | None, path: Path) -> str:
    """The text of an expression in its file, on one line."""
    if node is None:
        return ""
    text = ast.get_source_segment(path.read_text(encoding="utf-8"), node) or ast.unparse(node)
    return " ".join(text.split()).replace("[ ", "[").replace(", ]", "]").replace(" ]", "]")


def _drawn(parameter: Parameter) -> addnodes.desc_parameter:
    node = addnodes.desc_parameter("", "")
    stars = len(parameter.name) - len(parameter.name.lstrip("*/"))
    if stars:
        node += addnodes.desc_sig_operator("", parameter.name[:stars])
    if name := parameter.name[stars:]:
        node += addnodes.desc_sig_name("", name)
    space = addnodes.desc_sig_space()
    if parameter.type:
        node += [addnodes.desc_sig_punctuation("", ":"), space]
        node += addnodes.desc_sig_name("", parameter.type)
    if parameter.default:
        around = [space.deepcopy()] if parameter.type else []
        node += [*around, addnodes.desc_sig_operator("", "="), *(s.deepcopy() for s in around)]
        node += nodes.inline(
            "", parameter.default, classes=["default_value"], support_smartquotes=False
        )
    return node


def _after_name(entry: Entry) -> list[nodes.Node]:
    """': Tensor' of a property, '= value' of a name that is assigned; a long value is left out."""
    if entry.kind == "property":
        result = returned(entry)
        return [addnodes.desc_annotation("", f": {result}")] if result else []
    value = _typed(getattr(entry.definition.node, "value", None), entry.definition.path)
    return [addnodes.desc_annotation("", f" = {value}")] if 0 < len(value) <= _LINE else []
