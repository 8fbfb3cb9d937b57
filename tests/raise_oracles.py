"""Raises the libraries that the oracle tests compare with: `make raise-oracles [L="trl verl"]`.

pip says what is newest beside the packages that the site is built with, which stay as they are;
the pins are rewritten, and the pages that name an old version are listed. `make` then compares
again. Leaves out: the words of those pages, which nobody but a reader of the library can renew.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PINS = "constraints.txt"
# Installed without what they require, which no oracle test touches.
ALONE = "tests/oracle/requirements-no-deps.txt"
_PIN = re.compile(r"^([\w.-]+)==(\S+)$", re.MULTILINE)

# Asks for the newest of some packages, with pip's own options: name -> version.
Ask = Callable[[list[str], list[str]], dict[str, str]]


def pinned(text: str) -> dict[str, str]:
    """The versions in a file of pins, by canonical name."""
    return {canonicalize_name(name): version for name, version in _PIN.findall(text)}


def compared(root: Path) -> set[str]:
    """The libraries in the table of comparisons."""
    rows = json.loads((root / "docs" / "agreement.json").read_text(encoding="utf-8"))
    return {canonicalize_name(row["library"]) for row in rows}


def of_the_site(root: Path) -> set[str]:
    """What the package, its site and its tests name: no library of an oracle test moves these."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [r for extra in extras if extra != "oracle" for r in extras[extra]]
    requirements = map(Requirement, [*project["dependencies"], *named])
    return {canonicalize_name(requirement.name) for requirement in requirements}


def newest(names: Iterable[str], root: Path, ask: Ask) -> dict[str, str]:
    """Return the newest versions of the libraries, and of what those newly require."""
    alone = pinned((root / ALONE).read_text(encoding="utf-8"))
    pins = pinned((root / PINS).read_text(encoding="utf-8"))
    names = set(names)
    if unknown := sorted(names - alone.keys() - pins.keys()):
        raise SystemExit(f"raise-oracles: no pin of {', '.join(unknown)}")
    kept = [f"{name}=={pins[name]}" for name in sorted(of_the_site(root) & pins.keys() - names)]
    found: dict[str, str] = {}
    if together := sorted(names - alone.keys()):
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as constraints:
            constraints.write("\n".join(kept))
            constraints.flush()
            found |= ask(together, ["--constraint", constraints.name])
    if by_themselves := sorted(names & alone.keys()):
        found |= ask(by_themselves, ["--no-deps"])
    return {canonicalize_name(name): version for name, version in found.items()}


def ask_pip(names: list[str], options: list[str]) -> dict[str, str]:
    """What pip would install to have the newest of some packages in this environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--dry-run", "--report", "-", "--upgrade", *options, *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:  # pip has said why
        raise SystemExit("raise-oracles: the pins are as they were")
    told = (entry["metadata"] for entry in json.loads(done.stdout)["install"])
    return {metadata["name"]: metadata["version"].partition("+")[0] for metadata in told}


def rewrite(text: str, versions: dict[str, str], *, add: bool) -> str:
    """Return a file of pins with other versions; with `add`, in order, with those that it lacks."""
    replaced = _PIN.sub(lambda pin: f"{pin[1]}=={_version(pin, versions)}", text)
    lines = replaced.splitlines()
    if add:
        new = versions.keys() - pinned(text).keys()
        lines += [f"{name}=={versions[name]}" for name in new]
        lines.sort(key=lambda line: line.partition("==")[0].lower())
    return "\n".join(lines) + "\n"


def _version(pin: re.Match[str], versions: dict[str, str]) -> str:
    return versions.get(canonicalize_name(pin[1]), pin[2])


def naming(root: Path, library: str, version: str) -> list[str]:
    """The pages that name a library in a version: 'TRL 1.16.0', 'trl 1.16'."""
    short = ".".join(version.split(".")[:2])
    name = re.escape(library).replace("\\-", "[-_ ]")
    told = re.compile(rf"\b{name}\W{{1,4}}{re.escape(short)}(?!\d)", re.IGNORECASE)
    return [
        page.relative_to(root / "docs").as_posix()
        for page in sorted((root / "docs").rglob("*.md"))
        if told.search(page.read_text(encoding="utf-8"))
    ]


def main(names: list[str], root: Path = ROOT, ask: Ask = ask_pip) -> None:
    """Raise the named libraries, or all but those that the site itself is built with."""
    chosen = {canonicalize_name(name) for name in names} or compared(root) - of_the_site(root)
    before = {name: (root / name).read_text(encoding="utf-8") for name in (PINS, ALONE)}
    old = pinned(before[ALONE]) | pinned(before[PINS])
    versions = newest(chosen, root, ask)
    only_alone = pinned(before[ALONE]).keys() - pinned(before[PINS]).keys()
    in_pins = {name: version for name, version in versions.items() if name not in only_alone}
    (root / PINS).write_text(rewrite(before[PINS], in_pins, add=True), encoding="utf-8")
    (root / ALONE).write_text(rewrite(before[ALONE], versions, add=False), encoding="utf-8")
    for name in sorted(versions):
        if versions[name] != old.get(name):
            print(f"{name}: {old.get(name, 'new')} -> {versions[name]}")
            if name in chosen and (pages := naming(root, name, old[name])):
                print(f"  named with its old version on {', '.join(pages)}")
    if all(versions[name] == old.get(name) for name in versions):
        print("All are the newest that go with the site's packages.")


if __name__ == "__main__":
    main(sys.argv[1:])
