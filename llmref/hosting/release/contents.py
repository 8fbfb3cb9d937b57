"""What the wheel holds: the package's files and no others, no path of this machine, all of it used.

Leaves out: that the same files give the same bytes, which tests of llmref.hosting.wheel show.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

from llmref.hosting.release.checkout import Checkout, RefusedError, first, listed
from llmref.hosting.wheel import build_wheel

# Run without any path but the wheel's and the installed packages': each public name is loaded.
_IMPORT = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
import llmref
names = [(group, name) for group in llmref.__all__
         for name in importlib.import_module(f"llmref.{group}").__all__]
for group, name in names:
    getattr(importlib.import_module(f"llmref.{group}"), name)
print(llmref.__version__, llmref.__file__, len(names), sep="\\n")
"""


def check_wheel(release: Checkout) -> str:
    """The wheel of this checkout has exactly its files; it installs, and every name can be used."""
    with tempfile.TemporaryDirectory() as temporary:
        wheel = build_wheel(release.root, Path(temporary))
        count = check_files(wheel, release)
        check_paths(wheel, [release.root, Path.home(), Path(tempfile.gettempdir())])
        names = check_names(wheel, release.version, Path(temporary) / "installed")
        return f"{wheel.name}: {count} files, {names} names"


def check_files(wheel: Path, release: Checkout) -> int:
    """It holds the tracked files of the package, of this version, and what describes it."""
    inside = set(ZipFile(wheel).namelist())
    described = f"llmref-{release.version}.dist-info/"
    if f"{described}METADATA" not in inside:
        raise RefusedError(f"{wheel.name} is not of version {release.version}")
    held = {name for name in inside if not name.startswith(described)}
    # A name with a dot in front is a setting of the checkout, such as npm's.
    tracked = {name for name in release.tracked("llmref") if "/." not in name}
    if surplus := sorted(held - tracked):
        raise RefusedError(f"{wheel.name} holds what is not the package's: {listed(surplus)}")
    if missing := sorted(tracked - held):
        raise RefusedError(f"{wheel.name} lacks {listed(missing)}")
    return len(held)


def check_paths(wheel: Path, folders: list[Path]) -> None:
    """No file of it, itself included, names a folder of the machine that built it."""
    with ZipFile(wheel) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            for folder in folders:
                # The folder itself, not one whose name goes on, nor the end of another path.
                told = rb"(?<![\w.~/-])" + re.escape(bytes(folder.resolve())) + rb"/\w"
                if len(folder.parts) > 1 and re.search(told, content):
                    raise RefusedError(f"{name} in the wheel names {folder}")


def check_names(wheel: Path, version: str, folder: Path) -> int:
    """It installs into an empty folder, and all that its front doors list can be imported there."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", "--no-index", "--no-compile", "--target", str(folder), str(wheel)])
    said = _run([sys.executable, "-I", "-c", _IMPORT, str(folder)]).splitlines()
    if said[0] != version or not Path(said[1]).is_relative_to(folder):
        raise RefusedError(f"installed, the wheel is version {said[0]}, not {version}")
    return int(said[2])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:  # the last line of a traceback says what went wrong
        raise RefusedError(f"the wheel: {first(done.stderr.splitlines()[::-1])}")
    return done.stdout
