"""The site's machinery, in rooms. Only this package needs Sphinx.

execution: how pages run, and what they depend on. results: results, checks, and what the site says
of them. topics: the form of a topic's page, and what is collected from all. incremental: what
Sphinx would leave stale. api: the package, as the site shows it. web: what a browser and a program
get. downloads: what a reader takes along. books: the site as one file. Three leaves serve them:
borrowed, what others have never promised; single, a build of one page alone; transforms, places of
a page that are filled in last.
Leaves out: what needs no Sphinx (hosting), and the checks that pages run (verify).
"""

from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:  # the server of kernels starts before Sphinx has loaded all else
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

ROOMS = ("execution", "results", "topics", "incremental", "api", "web", "downloads", "books")


def version(folder: Path = Path(__file__).parent) -> int:
    """Return a number that changes with the machinery: at another one all pages are read again.

    It covers the code, the templates, and the packages that the site is built with. Style sheets
    and scripts are copied as they are, so no page is read for them (but see incremental.writing).
    """
    from llmref.sphinxext.execution.environment import environment

    number = crc32("\n".join(environment()).encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in {".pyc", ".css"} and path.parent.name != "static":
            number = crc32(path.read_bytes(), crc32(path.name.encode(), number))
    return number


def setup(app: "Sphinx") -> "ExtensionMetadata":
    """Set up every room."""
    for room in ROOMS:
        app.setup_extension(f"{__name__}.{room}")
    return {
        "version": "1",
        "env_version": version(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
