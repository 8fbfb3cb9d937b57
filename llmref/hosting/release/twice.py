"""The site and its EPUB, built from nothing in two folders, are the same bytes.

Leaves out: the PDF, which the reader's Chromium prints.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from llmref.hosting.release.checkout import Checkout, RefusedError, first, listed

# Of another depth and another length, and the second as it may not be named in a command.
_FOLDERS = ("one", "another/place of it")


def check_bytes(release: Checkout, build: Callable[[Path], None] | None = None) -> str:
    """Copy the tracked files to two folders, build there, and compare all that was built."""
    built = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in _FOLDERS:
            folder = Path(temporary) / name
            for file in release.tracked():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(release.root / file, folder / file)
            (build or make)(folder)
            built.append(digests(folder / "_build"))
            shutil.rmtree(folder)
    one, two = built
    if not one:
        raise RefusedError("nothing was built")
    if differing := sorted(name for name in one | two if one.get(name) != two.get(name)):
        raise RefusedError(f"two builds differ in {len(differing)} files: {listed(differing)}")
    return f"{len(one)} files of two builds are the same"


def make(folder: Path) -> None:
    """Build site and EPUB by the Makefile there, with the environment that runs this."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    installed = [f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.docs"]  # as it is: install nothing
    done = subprocess.run(
        ["make", "strict", "epub", *installed],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise RefusedError(f"make strict epub: {first(done.stderr.splitlines())}")


def digests(folder: Path) -> dict[str, str]:
    """Return a digest of each file that is published: the site's, and the book."""
    files = [path for path in (folder / "html").rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [*files, *folder.glob("*.epub")]
    }
