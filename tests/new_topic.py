"""Starts a topic: `make topic T=group/name` makes its module, page, tests and entries, all green.

What it makes is a true example, in tests/topic_template, that the author replaces. A name that
cannot be a topic gets one line that says why, and then nothing is made. Leaves out: a topic of
several parts, which starts as a module and becomes a package when it has two.
"""

import keyword
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from llmref.records import read_published
from llmref.sphinxext.api.public import groups, stub_lines, topics

ROOT = Path(__file__).parents[1]
TEMPLATES = Path(__file__).parent / "topic_template"
# What is made from each template.
FILES = {
    "module.py.txt": "llmref/{group}/{name}.py",
    "by_hand.py.txt": "llmref/practice/by_hand/{group}/{name}.py",
    "exercise.py.txt": "llmref/practice/exercises/{group}/{name}.py",
    "solutions.py.txt": "tests/practice/solutions/{group}_{name}.py",
    "page.md.txt": "docs/{group}/{name}.md",
    "test.py.txt": "tests/{group}/test_{name}.py",
    "oracle.py.txt": "tests/oracle/test_{name}.py",
}
# What the new oracle test writes its row into.
TABLE = "docs/agreement.json"


class RefusedError(Exception):
    """A topic that cannot be made, and why."""


def check(topic: str, root: Path) -> tuple[str, str]:
    """Return group and name of a topic that can be made.

    Raises: RefusedError that says why it cannot.
    """
    group, slash, name = topic.partition("/")
    known = groups(root)
    if not slash or not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise RefusedError(f"say T=group/name, the name as a module's, as in rl/kl; got {topic!r}")
    if group not in known:
        raise RefusedError(f"there is no group {group!r}; there are {', '.join(known)}")
    if name in sys.stdlib_module_names or name == "index":
        raise RefusedError(
            f"{name!r} would shadow Python's module or the group's page of that name"
        )
    taken = {line.split()[3] for line in stub_lines(group, root)}
    if name in topics(group, root) or name in taken:
        raise RefusedError(f"llmref.{group} has {name!r} already")
    for path in (pattern.format(group=group, name=name) for pattern in FILES.values()):
        if (root / path).exists():
            raise RefusedError(f"{path} exists already")
    if result_id(name) in read_published(root / "docs/result-ids.txt"):
        raise RefusedError(f"the result id {result_id(name)} is taken: ids are for ever")
    return group, name


def result_id(name: str) -> str:
    """'top_k' -> 'top-k-example'."""
    return f"{name.replace('_', '-')}-example"


def by_hand_id(name: str) -> str:
    """'top_k' -> 'top-k-by-hand'."""
    return f"{name.replace('_', '-')}-by-hand"


def plan(group: str, name: str, root: Path) -> dict[Path, str]:
    """Return the texts of all files that are new or edited."""
    words = {
        "group": group,
        "name": name,
        "NAME": name.upper(),
        "title": title_of(name),
        "id": result_id(name),
        "by-hand": by_hand_id(name),
    }
    texts = {}
    for template, pattern in FILES.items():
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        texts[root / pattern.format(**words)] = text
    edits = {
        "docs/index.md": into_index,
        "docs/result-ids.txt": into_ids,
        f"llmref/{group}/__init__.pyi": into_stub,
    }
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for path, edit in edits.items():
        text = (root / path).read_text(encoding="utf-8")
        texts[root / path] = edit(text, group=group, name=name, version=project["version"])
    return texts


def title_of(name: str) -> str:
    """'top_k' -> 'Top k'."""
    return name.replace("_", " ").capitalize()


def into_index(text: str, *, group: str, name: str, version: str) -> str:
    """Put the topic at the end of its group, in the list of topics and in the toctree."""
    listed = list(re.finditer(rf"\{{doc\}}`[^`<]*<{group}/\w+>`(?=\n:::)", text))
    entries = list(re.finditer(rf"^{group}/\w+$", text, re.MULTILINE))
    if not listed or not entries:
        raise RefusedError(f"docs/index.md has no list of topics, or no toctree, of {group}")
    # From the end, so that the first place stays where it is.
    for place, new in (
        (entries[-1].end(), f"\n{group}/{name}"),
        (listed[-1].end(), f",\n{{doc}}`{title_of(name).lower()} <{group}/{name}>`"),
    ):
        text = text[:place] + new + text[place:]
    return text


def into_ids(text: str, *, group: str, name: str, version: str) -> str:
    """Put the id of the example in its sorted place."""
    lines = text.splitlines()
    comments = [line for line in lines if line.startswith("#")]
    ids = [line for line in lines if not line.startswith("#")]
    ids += [f"{id_} {version}" for id_ in (result_id(name), by_hand_id(name))]
    return "\n".join([*comments, *sorted(ids, key=lambda line: line.split()[0])]) + "\n"


def into_stub(text: str, *, group: str, name: str, version: str) -> str:
    """Put the function into the group's front door, where the formatter wants it."""
    line = f"from .{name} import {name} as {name}\n"
    if len(line) > 101:
        line = f"from .{name} import (\n    {name} as {name},\n)\n"
    after = (m for m in re.finditer(r"^from \.(\w+) import", text, re.MULTILINE) if m[1] > name)
    place = next((match.start() for match in after), len(text))
    return text[:place] + line + text[place:]


def write(texts: dict[Path, str], root: Path) -> None:
    """Write all files and compare with torch; if anything fails, leave all as it was."""
    touched = [*texts, root / TABLE]
    before = {path: path.read_bytes() if path.is_file() else None for path in touched}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        oracle = next(path for path in texts if path.parent.name == "oracle")
        run = [sys.executable, "-m", "pytest", "-q", "-c", "tests/oracle/pytest.ini", "--rootdir"]
        compared = subprocess.run(
            [*run, ".", str(oracle.relative_to(root)), "--write-agreement"],
            cwd=root,
            capture_output=True,
            text=True,
        )
        if compared.returncode:
            raise RefusedError(f"the new test fails:\n{compared.stdout}{compared.stderr}")
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        raise


def main(topic: str, root: Path = ROOT) -> int:
    """Make the topic, and say what was made and what is next."""
    try:
        group, name = check(topic, root)
        texts = plan(group, name, root)
        write(texts, root)
    except RefusedError as error:
        print(f"make topic: {error}", file=sys.stderr)
        return 1
    made = [path.relative_to(root).as_posix() for path in texts]
    print("Made or edited:", *(f"  {path}" for path in [*made, TABLE]), sep="\n")
    print(
        "Replace the example in each of them, and its id in docs/result-ids.txt; then\n"
        f"  make test T=tests/{group}/test_{name}.py\n  make html"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
