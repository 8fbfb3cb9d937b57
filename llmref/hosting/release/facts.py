"""What a release says of itself in several files agrees: its version, date, ids and authors.

Each check returns what it found, or raises RefusedError with what is wrong.
"""

import json
import re
import tomllib
from datetime import date

import yaml

from llmref.hosting.citation import read_work
from llmref.hosting.release import zenodo
from llmref.hosting.release.checkout import Checkout, RefusedError, listed, numbers
from llmref.records import parse_published

_IDS = "docs/result-ids.txt"
_CITED = ("cff-version", "message", "title", "abstract", "authors", "version", "date-released")
_DESCRIBED = ("license", "repository-code", "keywords")


def check_tag(release: Checkout) -> str:
    """The tag is the version's, of this very commit, and above the last release."""
    wanted = f"v{release.version}"
    here = release.tags("--points-at", "HEAD")
    if release.tag not in ("", wanted):
        raise RefusedError(f"TAG={release.tag}, but the version is {release.version}: {wanted}")
    if changed := [line[3:] for line in release.git("status", "--porcelain").splitlines()]:
        raise RefusedError(f"no commit holds what was changed: {listed(changed)}")
    if others := [tag for tag in here if tag != wanted]:
        raise RefusedError(f"this commit is {listed(others)} already; its version says {wanted}")
    if wanted in release.tags() and wanted not in here:
        raise RefusedError(f"{wanted} is another commit")
    last = release.last_release
    if last and numbers(last) >= numbers(wanted):
        raise RefusedError(f"{wanted} is not above the last release, {last}")
    after = f"after {last}" if last else "the first release"
    if here:
        return f"this commit is {wanted}, {after}"
    return f"this commit has no tag yet: {wanted} is expected, {after}"


def check_versions(release: Checkout) -> str:
    """Every file that has the version has the same."""
    found = {
        "pyproject.toml": release.version,
        "llmref/__init__.py": _find(r'^__version__ = "(.+)"$', release, "llmref/__init__.py"),
        "CITATION.cff": read_work(release.root / "CITATION.cff").version,
        zenodo.FILE: str(json.loads(release.text(zenodo.FILE))["version"]),
        "CHANGELOG.md": _find(r"^## (\S+)", release, "CHANGELOG.md"),
    }
    if len(set(found.values())) > 1:
        told = [f"{version} in {name}" for name, version in found.items()]
        raise RefusedError(f"the versions differ: {listed(told)}")
    return f"{release.version} in {listed(list(found))}"


def check_changelog(release: Checkout) -> str:
    """The first section is of this version, has the date of CITATION.cff, and says something."""
    section = re.search(
        rf"^## {re.escape(release.version)}(?: \(([^)\n]*)\))?$(.*?)(?=^## |\Z)",
        release.text("CHANGELOG.md"),
        re.MULTILINE | re.DOTALL,
    )
    if section is None:
        raise RefusedError(f"CHANGELOG.md has no section '## {release.version} (YYYY-MM-DD)'")
    released = read_work(release.root / "CITATION.cff").released
    if section[1] != released:
        raise RefusedError(
            f"CHANGELOG.md dates {release.version} '{section[1] or ''}', CITATION.cff '{released}'"
        )
    lines = re.findall(r"^- \S", section[2], re.MULTILINE)
    if not lines:
        raise RefusedError(f"CHANGELOG.md says nothing of {release.version}")
    return f"{release.version} of {released}, {len(lines)} lines"


def check_ids(release: Checkout) -> str:
    """No id of the last release is lost or changed, and each new one has this version."""
    now, last = parse_published(release.text(_IDS), _IDS), release.last_release
    told = release.git("show", f"{last}:{_IDS}") if last else ""
    before = parse_published(told, f"{_IDS} of {last}")
    if lost := [id_ for id_ in before if id_ not in now]:
        raise RefusedError(f"{_IDS} has lost {listed(lost)}")
    if other := [id_ for id_ in before if before[id_].version != now[id_].version]:
        raise RefusedError(f"{_IDS} has another version than {last} for {listed(other)}")
    new = [id_ for id_ in now if id_ not in before]
    if wrong := [id_ for id_ in new if now[id_].version != release.version]:
        raise RefusedError(f"{_IDS}: new ids are of {release.version}, not {listed(wrong)}")
    return f"{len(now)} ids, {len(new)} of them new"


def check_citation(release: Checkout) -> str:
    """CITATION.cff has what a citation needs, and a date that is one."""
    data = yaml.safe_load(release.text("CITATION.cff"))
    if missing := [field for field in (*_CITED, *_DESCRIBED) if not data.get(field)]:
        raise RefusedError(f"CITATION.cff lacks {listed(missing)}")
    if not isinstance(data["date-released"], date):  # YAML reads nothing else as a date
        raise RefusedError(f"CITATION.cff: {data['date-released']!r} is no date, YYYY-MM-DD")
    if str(data["cff-version"]) != "1.2.0":
        raise RefusedError(f"CITATION.cff is of form 1.2.0, not {data['cff-version']}")
    return f"{data['title']} ({data['date-released']})"


def check_authors(release: Checkout) -> str:
    """The authors are those of CITATION.cff wherever a file must name them itself."""
    authors = list(read_work(release.root / "CITATION.cff").authors)
    line = ", ".join(authors)
    project = tomllib.loads(release.text("pyproject.toml"))["project"]
    holders = re.findall(r"^Copyright \(c\) \d{4} (.+)$", release.text("LICENSE"), re.MULTILINE)
    agree = {
        "pyproject.toml": [author["name"] for author in project["authors"]] == authors,
        "LICENSE": set(holders) == {line},
        "docs/_cover.svg": f">{line}</text>" in release.text("docs/_cover.svg"),
    }
    if wrong := [name for name, same in agree.items() if not same]:
        raise RefusedError(f"CITATION.cff says '{line}', which {listed(wrong)} must say too")
    return f"{line}, in CITATION.cff, {listed(list(agree))}"


def check_zenodo(release: Checkout) -> str:
    """.zenodo.json is valid, and what `make zenodo` writes from CITATION.cff."""
    data = json.loads(release.text(zenodo.FILE))
    if wrong := zenodo.faults(data):
        raise RefusedError(f"{zenodo.FILE}, {listed(wrong)}")
    derived = zenodo.metadata(release.root)
    if other := [field for field in derived if data[field] != derived[field]]:
        raise RefusedError(f"{zenodo.FILE} is not CITATION.cff's in {listed(other)}: make zenodo")
    return f"{zenodo.FILE} is valid, and CITATION.cff's"


def _find(pattern: str, release: Checkout, name: str) -> str:
    found = re.search(pattern, release.text(name), re.MULTILINE)
    return found[1] if found else "none"
