"""What the site says of a public name: its kind, its summary, its equations, its members.

Leaves out: how that looks (listing, signatures).
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llmref.sphinxext.api.definitions import Definition, find_definition, parse
from llmref.sphinxext.api.public import PACKAGE, groups, public_names, topics

_EQUATION = re.compile(r"eq-[a-z0-9-]*[a-z0-9]")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
# Decorators that make a function of a class something else, for Sphinx too.
_KINDS = {"property", "cached_property", "staticmethod", "classmethod"}


@dataclass(frozen=True)
class Entry:
    """A public name, as a user imports it, and what its definition says."""

    name: str  # 'llmref.attention.multi_head.MultiHeadAttention'
    kind: str  # 'function', 'class', 'method', 'property', ..., or 'data'
    definition: Definition
    summary: str
    equations: tuple[str, ...]  # labels, as in `# eq. eq-rms-norm`
    choices: tuple["Choice", ...]
    members: tuple["Entry", ...] = ()


@dataclass(frozen=True)
class Choice:
    """A parameter that takes one of some texts, and the file that says which."""

    parameter: str
    texts: tuple[str, ...]
    path: Path


@dataclass(frozen=True)
class Topic:
    """A topic: its module, its title, the question that it answers, its public names."""

    name: str
    title: str
    path: Path
    page: Path | None
    question: str
    entries: tuple[Entry, ...]


def read_topics(group: str, root: Path, docs: Path) -> list[Topic]:
    """Return the topics of a group; `docs` holds their pages, which give the titles."""
    found = []
    for topic, path in topics(group, root).items():
        name = f"{PACKAGE}.{group}.{topic}"
        page = docs / group / f"{topic}.md"
        entries = tuple(read_entry(f"{name}.{public}", root) for public in public_names(path))
        found.append(
            Topic(
                name,
                page_title(page) or topic.replace("_", " ").capitalize(),
                path,
                page if page.is_file() else None,
                summary_of(ast.get_docstring(parse(path)) or ""),
                entries,
            )
        )
    return found


def state(group: str, root: Path, docs: Path) -> list[tuple[str, str]]:
    """Return what a listing depends on beside the text of its files: which there are.

    'norm' -> [('norm/layer_norm', 'LayerNorm'), ('norm/rms_norm', 'RMSNorm')]
    """
    return [
        (f"{name}/{topic}", page_title(docs / name / f"{topic}.md"))
        for name in ([group] if group else groups(root))
        for topic in topics(name, root)
    ]


def page_title(page: Path) -> str:
    """Return the title of a page, '' if there is no such page."""
    match = _TITLE.search(page.read_text(encoding="utf-8")) if page.is_file() else None
    return match[1] if match else ""


def read_entry(name: str, root: Path) -> Entry:
    """Return what is known of a public name. Raises: LookupError if it is defined nowhere."""
    return _entry(name, find_definition(name, root), root)


def _entry(name: str, definition: Definition, root: Path, *, inside: bool = False) -> Entry:
    node = definition.node
    members = tuple(_members(name, definition, root)) if isinstance(node, ast.ClassDef) else ()
    theirs = {line for member in members for line in range(*_span(member.definition))}
    ours = [n for n in range(*_span(definition)) if n not in theirs]
    time = definition.path.stat().st_mtime_ns
    labels = [label for n in ours for label in _labels(definition.path, time).get(n, ())]
    has_docstring = isinstance(node, (ast.FunctionDef, ast.ClassDef))
    docstring = ast.get_docstring(node) if has_docstring else ""  # type: ignore[arg-type]
    return Entry(
        name,
        _kind(node, inside),
        definition,
        summary_of(docstring or ""),
        tuple(dict.fromkeys(labels)),
        tuple(_choices(definition, root)),
        members,
    )


def _choices(definition: Definition, root: Path) -> Iterator[Choice]:
    """Yield the parameters whose type is an alias of a Literal."""
    function = definition.node
    for inner in function.body if isinstance(function, ast.ClassDef) else ():
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            function = inner
    if not isinstance(function, ast.FunctionDef):
        return
    module = ".".join(definition.path.relative_to(root).with_suffix("").parts)
    for parameter in [*function.args.args, *function.args.kwonlyargs]:
        for name in ast.walk(parameter.annotation) if parameter.annotation else ():
            alias = _alias(f"{module}.{name.id}", root) if isinstance(name, ast.Name) else None
            if alias and (texts := _literals(alias.node)):
                yield Choice(parameter.arg, texts, alias.path)


def _alias(name: str, root: Path) -> Definition | None:
    """The definition of a type that a module names, if it is ours."""
    try:
        return find_definition(name, root)
    except LookupError:
        return None


def _literals(node: ast.AST) -> tuple[str, ...]:
    """Kind = Literal["a", "b"] -> ('a', 'b')."""
    value = node.value if isinstance(node, ast.Assign) else None
    if not (isinstance(value, ast.Subscript) and ast.unparse(value.value) == "Literal"):
        return ()
    listed = value.slice.elts if isinstance(value.slice, ast.Tuple) else [value.slice]
    return tuple(str(ast.literal_eval(text)) for text in listed)


def _members(name: str, definition: Definition, root: Path) -> Iterator[Entry]:
    for node in getattr(definition.node, "body", ()):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            inner = Definition(f"{definition.name}.{node.name}", definition.path, node)
            yield _entry(f"{name}.{node.name}", inner, root, inside=True)


def _span(definition: Definition) -> tuple[int, int]:
    first, last = definition.lines
    return first, last + 1


def _kind(node: ast.AST, inside: bool) -> str:
    if isinstance(node, ast.ClassDef):
        return "class"
    if not isinstance(node, ast.FunctionDef):
        return "data"
    decorators = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
    special = sorted(decorators & _KINDS)
    if inside and special:
        return special[0].removeprefix("cached_")
    return "method" if inside else "function"


@lru_cache(maxsize=256)
def _labels(path: Path, _changed: int) -> dict[int, list[str]]:
    """The equations that comments of a file name, by line: '# eq. eq-a and eq-b' names two."""
    with tokenize.open(path) as file:
        return {
            token.start[0]: _EQUATION.findall(token.string)
            for token in tokenize.generate_tokens(file.readline)
            if token.type == tokenize.COMMENT and token.string.startswith("# eq. ")
        }


def summary_of(docstring: str) -> str:
    """Return the first sentence of a docstring, which may take two lines."""
    lines: list[str] = []
    for line in docstring.strip().partition("\n\n")[0].splitlines():
        lines.append(line.strip())
        if line.rstrip().endswith((".", "?", "!")):
            break
    return " ".join(lines)
