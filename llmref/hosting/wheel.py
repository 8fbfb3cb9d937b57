"""The wheel of this checkout, so that a reader can install the very version that built the site.

It is made from a copy, without a network, and the same files give the same bytes. Needs setuptools.
Leaves out: where it is served (sphinxext.downloads.wheel), and when it is made again.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

_BESIDE = ("pyproject.toml", "README.md", "LICENSE")
# The time of all files in the archive: the first that a zip archive can hold.
_EPOCH = "315532800"
# The archive holds the rights of each file, which must not depend on who builds it.
_BUILD = """
import os, sys
from setuptools import build_meta
os.umask(0o022)
build_meta.build_wheel(sys.argv[1])
"""


def wheel_name(project: str, release: str) -> str:
    """'llmref-0.1.0-py3-none-any.whl'."""
    return f"{project}-{release}-py3-none-any.whl"


def digest(root: Path) -> str:
    """Return a digest of all that the wheel is made from."""
    state = hashlib.sha256(version("setuptools").encode())
    for path in _files(root):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        state.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return state.hexdigest()


def build_wheel(root: Path, folder: Path) -> Path:
    """Build the wheel of the checkout `root` into `folder`, and return its path.

    Raises: OSError with what setuptools said, if it refuses.
    """
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "copy"
        for path in _files(root):
            target = copy / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            target.chmod(0o644)
        built = Path(temporary) / "built"
        built.mkdir()
        made = subprocess.run(
            [sys.executable, "-c", _BUILD, str(built)],
            cwd=copy,
            env={**os.environ, "SOURCE_DATE_EPOCH": _EPOCH},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if made.returncode:
            raise OSError(f"no wheel could be built: {made.stdout.strip()}")
        (wheel,) = built.glob("*.whl")
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(wheel, folder / wheel.name))


def _files(root: Path) -> Iterator[Path]:
    """The package, and what describes it."""
    found = (root / "llmref").rglob("*")
    yield from (root / name for name in _BESIDE)
    yield from sorted(p for p in found if p.is_file() and "__pycache__" not in p.parts)
