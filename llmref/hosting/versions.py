"""The hosted site: the latest version at its root, each release in a folder of its name.

`python -m llmref.hosting.versions LATEST RELEASES TARGET`: LATEST is a built site, RELEASES holds
one folder for each release (v0.1.0/), and TARGET is written. All is static: each page lists the
same page in the other versions, and a page of an old one says so and leads to the latest. It is
done anew at each deployment, so old versions know the newer ones. The latest version is never
moved, and a release whose permanent links it no longer serves stops the assembly.
"""

import html
import json
import os
import re
import shutil
import sys
from pathlib import Path

# What each page has for this module, and a local build leaves as it is: see web/look.py.
LIST, NOTICE = "<!-- llmref: versions -->", "<!-- llmref: notice -->"
_RELEASE = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_BOOKS = {"PDF": "llmref.pdf", "EPUB": "llmref.epub"}
# At the root they speak for the whole site.
_ROOT_ONLY = ("404.html", "sitemap.xml")


def releases_in(folder: Path) -> list[Path]:
    """Return the folders of the releases, the newest first."""
    found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if wrong := [path.name for path in found if not _RELEASE.fullmatch(path.name)]:
        raise ValueError(f"a release's folder is named like v0.1.0, not {min(wrong)}")
    return sorted(found, key=lambda path: [*map(int, path.name[1:].split("."))], reverse=True)


def dead_links(release: Path, latest: Path) -> list[str]:
    """Return the permanent links of a release's results that the latest version does not serve."""
    data = json.loads((release / "results.json").read_text(encoding="utf-8"))
    texts: dict[str, str] = {}
    dead = []
    for result in data["results"]:
        name = f"{result['page']}.html"
        if name not in texts:
            path = latest / name
            texts[name] = path.read_text(encoding="utf-8") if path.is_file() else ""
        ids = [result["id"], *result["formerly"]]
        dead += [f"{name}#{id_}" for id_ in ids if f'id="{id_}"' not in texts[name]]
    return dead


def assemble(latest: Path, releases: list[Path], target: Path) -> None:
    """Write the hosted site."""
    for release in releases:
        if dead := dead_links(release, latest):
            raise ValueError(f"links of {release.name} would be dead: {', '.join(dead[:10])}")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(latest, target)
    for release in releases:
        shutil.copytree(release, target / release.name, ignore=shutil.ignore_patterns(*_ROOT_ONLY))
        _keep_wheels(release, target)
    folders = {"latest": target, **{r.name: target / r.name for r in releases}}
    for version, folder in folders.items():
        for path in sorted(folder.rglob("*.html")):
            name = path.relative_to(folder)
            if name.parts[0] in folders or "_static" in name.parts:
                continue
            text = path.read_text(encoding="utf-8")
            text = text.replace(LIST, _list(version, name, folders))
            if version != "latest":
                text = _mark_old(text, version, _address(path, target, name))
            path.write_text(text, encoding="utf-8")


def _keep_wheels(release: Path, target: Path) -> None:
    """Serve the wheel of a release at the root, where its notebooks look for it.

    Between releases the latest site may have a wheel of the same version; then the release's is it.
    """
    for wheel in (release / "_static").glob("*.whl"):
        shutil.copy2(wheel, target / "_static" / wheel.name)


def _address(path: Path, folder: Path, name: Path) -> str:
    """Where the page is in another version, seen from `path`; its first page if it is not there."""
    there = folder / name if (folder / name).is_file() else folder / "index.html"
    return html.escape(Path(os.path.relpath(there, path.parent)).as_posix())


def _list(version: str, name: Path, folders: dict[str, Path]) -> str:
    path = folders[version] / name
    links = {other: _address(path, folder, name) for other, folder in folders.items()}
    here = folders[version]
    books = {kind: book for kind, book in _BOOKS.items() if (here / book).is_file()}
    links |= {kind: _address(path, here, Path(book)) for kind, book in books.items()}
    current = {version: ' aria-current="true"'}
    items = [
        f'<li><a href="{address}"{current.get(text, "")}>{text}</a></li>'
        for text, address in links.items()
    ]
    return (
        f'<details class="versions"><summary>Version: {version}</summary>'
        f"<ul>{''.join(items)}</ul></details>"
    )


def _mark_old(text: str, version: str, latest: str) -> str:
    """Say on a page that it is old, and lead each result to the latest statement of it."""
    notice = (
        f'<p class="old-version" role="note">This is version {version[1:]}. '
        f'<a href="{latest}">Read the latest version.</a></p>'
    )
    text = text.replace(NOTICE, notice)
    return text.replace('<a class="result-id" href="#', f'<a class="result-id" href="{latest}#')


def main(latest: Path, releases: Path, target: Path) -> None:
    """Assemble, or say in one line why not."""
    try:
        assemble(latest, releases_in(releases), target)
    except ValueError as error:
        sys.exit(f"versions: {error}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
