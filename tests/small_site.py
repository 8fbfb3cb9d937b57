"""Small sites, built as a reader builds: by the command line, in a process of their own.

The process is forked from one that has imported Sphinx already, which saves two thirds of the time.
`build_cold` starts Python anew, with another seed of its hashes, for tests that compare bytes.
"""

import filecmp
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from sphinx.builders.html import _assets
from sphinx.testing.util import SphinxTestApp
from sphinx.util.console import strip_escape_sequences

ROOT = Path(__file__).parents[1]

# Kernels of small sites import what their cells ask for, and nothing beforehand.
CONF = """
project = "small"
extensions = ["myst_nb", "llmref.sphinxext"]
html_theme = "basic"
exclude_patterns = ["_build", "package"]
html_math_renderer = "katex"
myst_enable_extensions = ["colon_fence", "dollarmath"]
llmref_source_url = "https://example.org/{path}#L{first}-L{last}"
llmref_preload = ()
"""
EXECUTED = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n"


@dataclass
class Built:
    """What a build left behind."""

    code: int
    status: str
    warnings: str
    html: Path

    def page(self, name: str) -> str:
        return (self.html / f"{name}.html").read_text(encoding="utf-8")


class Site:
    """A folder of pages; `write` adds or replaces one, `build` builds it strictly."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        (root / "conf.py").write_text(CONF, encoding="utf-8")

    def configure(self, line: str) -> None:
        with (self.root / "conf.py").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def use_own_package(self) -> None:
        """Let pages import a package `llmref` of this site's own, in the folder `package`."""
        self.configure(f"llmref_root = {str(self.root / 'package')!r}")
        self.write("package/llmref/__init__.py", "")

    def write(self, name: str, text: str, *, executed: bool = False) -> None:
        text = (EXECUTED if executed else "") + textwrap.dedent(text)
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def keep(self) -> None:
        """Keep the site as it is, with what was built of it, for tests that start from there."""
        shutil.copytree(self.root, self.kept)

    def put_back(self) -> "Site":
        """Have it again as it was kept, in the same folder and with the same times."""
        shutil.rmtree(self.root)
        shutil.copytree(self.kept, self.root)
        return self

    @property
    def kept(self) -> Path:
        return self.root.with_name(f"{self.root.name}-kept")

    def line(self, name: str, text: str) -> int:
        """The line of `text` in a page, for comparison with what the build says."""
        lines = (self.root / name).read_text(encoding="utf-8").splitlines()
        return 1 + next(i for i, line in enumerate(lines) if text in line)

    def command(self, *options: str) -> list[str]:
        build = [sys.executable, "-m", "sphinx", "-nW", "--keep-going", "-b", "html", *options]
        return [*build, str(self.root), str(self.root / "_build/html")]

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start a build in a session of its own, so that signals reach it alone."""
        return subprocess.Popen(
            self.command(*options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.root,
            start_new_session=True,
            preexec_fn=hear_signals,
            env={**os.environ, "TMPDIR": str(self.root)},
        )

    def build_cold(self, *options: str) -> Built:
        process = self.start(*options)
        status, warnings = process.communicate()
        return Built(process.returncode, status, warnings, self.root / "_build/html")

    def build_here(self, name: str = "here", **config: object) -> Built:
        """Build in this process, which saves the seconds of a start."""
        folder = self.root / "_build" / name
        _assets._file_checksum_inner.cache_clear()  # of style sheets, for a single build
        filecmp.clear_cache()  # by size and time, which two texts may share in one process
        with patch.dict(os.environ):  # by which a build tells its kernels of the published ids
            app = SphinxTestApp(
                "html",
                srcdir=self.root,
                builddir=folder,
                warningiserror=True,
                confoverrides={"nitpicky": True, **config},
            )
            try:
                app.build()
                said = app.status.getvalue(), strip_escape_sequences(app.warning.getvalue())
                return Built(app.statuscode, *said, folder / "html")
            finally:
                app.cleanup()

    def build(self, *options: str) -> Built:
        arguments = self.command(*options)[3:]  # without 'python -m sphinx'
        with tempfile.TemporaryDirectory() as folder:
            said = [Path(folder) / name for name in ("status", "warnings")]
            process = _WARM.Process(
                target=_run_sphinx,
                args=(arguments, self.root, {**os.environ, "TMPDIR": str(self.root)}, *said),
            )
            process.start()
            process.join()
            status, warnings = (path.read_text(encoding="utf-8") for path in said)
        assert process.exitcode is not None
        return Built(process.exitcode, status, warnings, self.root / "_build/html")


def hear_signals() -> None:
    """Undo what a child inherits: in the background Ctrl-C is ignored, below nohup a hangup."""
    for number in (signal.SIGINT, *([signal.SIGHUP] if os.name == "posix" else [])):
        signal.signal(number, signal.SIG_DFL)


def _rooms() -> list[str]:
    """All modules of the machinery."""
    files = (ROOT / "llmref" / "sphinxext").rglob("[!_]*.py")
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]


_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(
    ["sphinx.cmd.build", "sphinx.builders.html", "myst_nb.sphinx_", *_rooms()]
)


def _run_sphinx(
    arguments: list[str], folder: Path, environment: dict[str, str], status: Path, warnings: Path
) -> None:
    """In the forked process: what `python -m sphinx` does there."""
    for descriptor, path in ((1, status), (2, warnings)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    from sphinx.cmd.build import main

    sys.exit(main(arguments))


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        # Sphinx's note to itself is not published.
        if path.is_file() and ".doctrees" not in path.parts and ".buildinfo" not in path.name
    }
