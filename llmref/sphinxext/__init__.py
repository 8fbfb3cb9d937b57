"""The site's machinery. Only this package needs Sphinx.

execution: how pages run, and what they depend on. results: results, checks and ledger.
export: the site for programs. source: the source of a function. math: formulas at build time.
head, icons: what a page loads. accessible: what keyboards and screen readers need.
epub, book: the whole site as one file.
"""

from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:  # exclusive.py starts without loading Sphinx
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata


COMPONENTS = (
    "accessible",
    "epub",
    "execution",
    "export",
    "head",
    "icons",
    "layout",
    "math",
    "results",
    "source",
)


def version(folder: Path = Path(__file__).parent) -> int:
    """Return a number that changes with the machinery: at another one all pages are read again."""
    number = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            number = crc32(path.read_bytes(), crc32(path.name.encode(), number))
    return number


def setup(app: "Sphinx") -> "ExtensionMetadata":
    """Set up every component."""
    # Loaded here, so that the server of kernels can start before all this is.
    for name in COMPONENTS:
        app.setup_extension(f"{__name__}.{name}")
    return {
        "version": "1",
        "env_version": version(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
